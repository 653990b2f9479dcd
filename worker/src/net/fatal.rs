//! The last words of a worker that crashes: why and where, on its standard error, for its
//! controller's crash report.
//!
//! Frames are told as offsets in the executable, which costs microseconds where names would cost
//! a tenth of a second that a call waits; `addr2line` finds the names later.

#![allow(
    unsafe_code,
    reason = "signal handlers and their stack have no safe wrapper"
)]

use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::panic;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Signals by which a process ends over its own doing.
const FATAL: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];
/// The stack of the handler: the process's own may be what overflowed.
const STACK_BYTES: usize = 64 * 1024;
/// Most frames that are told.
const FRAMES_MAX: usize = 64;
/// The line before the frames, by which the controller knows them.
const HEADING: &str = "backtrace:\n";

/// A panic has told where it was; the abort that follows has nothing to add.
static HAS_SPOKEN: AtomicBool = AtomicBool::new(false);

/// Lets this process say why it ends, whenever it does so by itself. What the signals do then
/// stays as it was.
///
/// # Errors
/// The system refuses a handler.
pub fn install() -> io::Result<()> {
    // The first call loads the unwinder, which a handler must not.
    let _ = frames(&mut [ptr::null_mut(); 1]);
    let stack = Box::leak(vec![0_u8; STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: the memory is leaked, so it stays, and nothing else ever uses it.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND | SaFlags::SA_SIGINFO;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    for signal in FATAL {
        // SAFETY: `handle` makes only calls that are allowed in a handler.
        unsafe { sigaction(signal, &action)? };
    }
    panic::set_hook(Box::new(|panic| {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let mut stderr = io::stderr().lock();
        // Nobody is left to hear of a failure to say it.
        let _ = writeln!(stderr, "thread '{name}' {panic}");
        let _ = stderr.write_all(HEADING.as_bytes());
        tell_frames();
        HAS_SPOKEN.store(true, Ordering::Relaxed);
    }));
    Ok(())
}

/// Says what happened and lets it happen: behind this handler the signal has its usual effect.
extern "C" fn handle(number: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    if !HAS_SPOKEN.swap(true, Ordering::Relaxed) {
        // SAFETY: the kernel hands over a valid `siginfo_t` to a handler with SA_SIGINFO.
        let address = unsafe { info.as_ref() }.map_or(0, |info| {
            // SAFETY: any bits are an address; it is only looked at.
            unsafe { info.si_addr() as usize }
        });
        let mut line = Line::default();
        let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
        let _ = match number {
            libc::SIGABRT => writeln!(line, "aborted ({name})"),
            _ => writeln!(line, "crashed ({name} at {address:#x})"),
        };
        let _ = line.write_str(HEADING);
        line.write_out();
        tell_frames();
    }
    // SAFETY: raising is allowed in a handler. The signal is blocked until this returns.
    unsafe { libc::raise(number) };
}

/// The frames of this call, innermost first.
fn frames(room: &mut [*mut c_void]) -> &[*mut c_void] {
    // SAFETY: no more than `room` holds is written.
    let count = unsafe { libc::backtrace(room.as_mut_ptr(), room.len() as libc::c_int) };
    &room[..usize::try_from(count).unwrap_or(0).min(room.len())]
}

/// Writes the frames of this call. Allocates nothing.
fn tell_frames() {
    let mut room = [ptr::null_mut(); FRAMES_MAX];
    let frames = frames(&mut room);
    // SAFETY: `frames` are what `backtrace` gave; the function writes to a descriptor and takes
    // no lock but the loader's.
    unsafe {
        libc::backtrace_symbols_fd(
            frames.as_ptr(),
            frames.len() as libc::c_int,
            libc::STDERR_FILENO,
        );
    }
}

/// Text on the stack.
struct Line {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 128],
            len: 0,
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl Line {
    fn write_out(&self) {
        // SAFETY: `len` bytes are there, and writing is allowed in a handler.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len) };
    }
}
