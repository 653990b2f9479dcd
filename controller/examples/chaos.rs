//! Kills the workers of an application while its rooms are in use, and tells what became of them.
//!
//! ```sh
//! cargo build -p broth-worker && cargo run -p broth --example chaos
//! ```

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use broth::chaos::{Direction, Fault, Order, Plan};
use broth::{Result, RoomMediaCodec, RoomOptions, Server, Settings};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let settings = Settings {
        // Workers hog memory and talk garbage when asked to: never in production.
        chaos: true,
        ..Settings::default()
    };
    let server = Server::new(settings).await?;
    // Here an application would let its test clients in.
    let codecs = [RoomMediaCodec::video("VP8")];
    for _ in 0..3 {
        server.room(&codecs, RoomOptions::default()).await?;
    }
    let plan = Plan {
        faults: vec![
            Fault::Kill,
            Fault::Stop,
            Fault::Garbage(Direction::FromWorker),
        ],
        order: Order::Random,
        count: 6,
        every: Duration::from_secs(1),
        seed: 1,
    };
    let mut run = plan.start(&server)?;
    while let Some(outcome) = run.next().await? {
        // Here it would look at what its clients noticed.
        let (fault, rooms) = (outcome.fault, outcome.rooms.len());
        let _ = writeln!(stdout(), "{fault:?} with {rooms} rooms");
    }
    let report = run.into_report();
    let _ = writeln!(stdout(), "{report}");
    server.close().await;
    Ok(match report.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
