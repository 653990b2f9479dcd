use std::io::Read;

use nix::sys::epoll::EpollCreateFlags;

use super::*;

const OWNER: Owner = Owner {
    router: 0,
    transport: None,
};

/// Sockets with one listener.
struct Scene {
    sockets: Sockets,
    listener: u32,
    address: SocketAddr,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mut sockets = Sockets::new(epoll);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = sockets.add(Protocol::Tcp, listener.into(), OWNER).unwrap();
        Self {
            sockets,
            listener,
            address,
            now: Instant::now(),
        }
    }

    /// A client that connected and was accepted.
    fn client(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        assert!(self.sockets.accept(self.now, self.listener));
        client
    }

    /// Whether the epoll instance reports something now.
    fn is_told(&self) -> bool {
        let mut events = [EpollEvent::empty()];
        self.sockets.epoll().wait(&mut events, 0u8) == Ok(1)
    }
}

/// Whether the other end has closed a connection.
fn is_closed(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    matches!(client.read(&mut [0]), Ok(0))
}

#[test]
fn who_says_nothing_in_time_is_closed() {
    let mut scene = Scene::new();
    let mut silent = scene.client();
    scene.now += STRANGER_TIME / 2;
    let (mut known, mut late) = (scene.client(), scene.client());
    let key = scene.sockets.strangers[1].1;
    scene.sockets.recognise(key);
    scene.sockets.drop_strangers(scene.now + STRANGER_TIME / 2);
    assert!(is_closed(&mut silent) && !is_closed(&mut known) && !is_closed(&mut late));
    scene.sockets.drop_strangers(scene.now + STRANGER_TIME);
    assert!(!is_closed(&mut known) && is_closed(&mut late));
    assert_eq!(scene.sockets.connections, 1);
}

#[test]
fn connections_leave_descriptors_for_others() {
    let mut scene = Scene::new();
    scene.sockets.connections_max = 2;
    let (mut first, mut second, mut third) = (scene.client(), scene.client(), scene.client());
    // The oldest of which nothing is known makes room.
    assert!(is_closed(&mut first) && !is_closed(&mut second) && !is_closed(&mut third));
    while let Some(&(_, key)) = scene.sockets.strangers.front() {
        scene.sockets.recognise(key);
    }
    let mut fourth = scene.client();
    assert!(is_closed(&mut fourth) && !is_closed(&mut second) && !is_closed(&mut third));
    scene.sockets.remove_router(0);
    assert_eq!(scene.sockets.connections, 0);
    assert!(is_closed(&mut second));
}

#[test]
fn what_cannot_be_accepted_is_told_once() {
    let mut scene = Scene::new();
    let _waiting = [(); 2].map(|()| TcpStream::connect(scene.address).unwrap());
    assert!(scene.is_told() && !scene.is_told());
    scene.sockets.wake(scene.listener);
    assert!(scene.is_told());
    let mut accept = || scene.sockets.accept(scene.now, scene.listener);
    assert_eq!([accept(), accept(), accept()], [true, true, false]);
}
