use IceEvent::{Selected, State, TupleAdded, TupleRemoved};
use IceState::{Completed, Connected, Disconnected, New};
use proptest::prelude::*;

use super::*;

fn agent() -> IceLite<u8> {
    IceLite::new(Credentials::from_random(&[0; 48]))
}

fn send(ice: &mut IceLite<u8>, now: Instant, tuple: u8, msg: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    let remote = SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(tuple)));
    ice.handle_binding(now, tuple, remote, msg, &mut reply)
        .unwrap();
    reply
}

fn request(credentials: &Credentials, priority: u32, nominate: bool) -> Vec<u8> {
    let mut msg = Vec::new();
    let username = format!("{}:peer", credentials.ufrag);
    let pwd = credentials.pwd.as_bytes();
    stun::write_binding_request(&mut msg, [9; 12], &username, priority, nominate, 5, pwd);
    msg
}

fn check(ice: &mut IceLite<u8>, now: Instant, tuple: u8, nominate: bool) {
    let msg = request(&ice.credentials().clone(), 1, nominate);
    let reply = send(ice, now, tuple, &msg);
    let reply = Message::parse(&reply).unwrap();
    assert_eq!(reply.class(), Class::Success);
    assert!(reply.verify_integrity(ice.credentials().pwd.as_bytes()));
}

fn events(ice: &mut IceLite<u8>) -> Vec<IceEvent<u8>> {
    std::iter::from_fn(|| ice.poll_event()).collect()
}

#[test]
fn every_row_of_the_state_table_holds() {
    let now = Instant::now();
    let rows = [
        (
            New,
            false,
            vec![TupleAdded(2), Selected(2), State(Connected)],
        ),
        (
            New,
            true,
            vec![TupleAdded(2), Selected(2), State(Completed)],
        ),
        (
            Disconnected,
            false,
            vec![TupleAdded(2), Selected(2), State(Connected)],
        ),
        (
            Disconnected,
            true,
            vec![TupleAdded(2), Selected(2), State(Completed)],
        ),
        (Connected, false, vec![TupleAdded(2)]),
        (
            Connected,
            true,
            vec![TupleAdded(2), Selected(2), State(Completed)],
        ),
        (Completed, false, vec![TupleAdded(2)]),
        (Completed, true, vec![TupleAdded(2), Selected(2)]),
    ];
    for (from, nominate, expected) in rows {
        let mut ice = agent();
        if from != New {
            check(&mut ice, now, 1, from == Completed);
        }
        if from == Disconnected {
            ice.remove_tuple(1);
        }
        assert_eq!(ice.state(), from);
        events(&mut ice);
        check(&mut ice, now, 2, nominate);
        assert_eq!(events(&mut ice), expected, "{from:?} {nominate}");
    }
}

#[test]
fn refused_checks_change_nothing() {
    let now = Instant::now();
    let mut ice = agent();
    let good = ice.credentials().clone();
    let wrong_name = Credentials {
        ufrag: "x".into(),
        ..good.clone()
    };
    let wrong_pwd = Credentials {
        pwd: "x".into(),
        ..good.clone()
    };
    let no_fingerprint = {
        let mut msg = request(&good, 1, false);
        msg.truncate(msg.len() - 8);
        let len = (msg.len() - 20) as u16;
        msg[2..4].copy_from_slice(&len.to_be_bytes());
        msg
    };
    let rows = [
        (request(&good, 0, true), 400),
        (no_fingerprint, 400),
        (request(&wrong_name, 1, true), 401),
        (request(&wrong_pwd, 1, true), 401),
    ];
    for (msg, code) in rows {
        let reply = send(&mut ice, now, 1, &msg);
        assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(code));
        assert!(events(&mut ice).is_empty() && ice.state() == New);
    }
    let mut response = Vec::new();
    stun::write_error(&mut response, [0; 12], 400);
    assert!(send(&mut ice, now, 1, &response).is_empty());
}

#[test]
fn old_credentials_are_refused_after_a_restart() {
    let now = Instant::now();
    let mut ice = agent();
    check(&mut ice, now, 1, true);
    let old = request(&ice.credentials().clone(), 1, true);
    ice.restart(Credentials::from_random(&[1; 48]));
    let reply = send(&mut ice, now, 1, &old);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401));
    assert_eq!((ice.state(), ice.selected()), (Completed, Some(1)));
}

#[test]
fn consent_expires_and_a_check_restores_it() {
    let start = Instant::now();
    let mut ice = agent();
    check(&mut ice, start, 1, true);
    check(&mut ice, start + Duration::from_secs(20), 1, false);
    events(&mut ice);
    let expiry = start + Duration::from_secs(50);
    assert_eq!(ice.poll_timeout(), Some(expiry));
    ice.handle_timeout(expiry - Duration::from_millis(1));
    assert_eq!(events(&mut ice), []);
    ice.handle_timeout(expiry);
    assert_eq!(events(&mut ice), [State(Disconnected)]);
    assert_eq!(ice.poll_timeout(), None);
    check(&mut ice, expiry, 1, false);
    assert_eq!(events(&mut ice), [State(Connected)]);
}

#[test]
fn the_oldest_unselected_tuple_makes_room() {
    let now = Instant::now();
    let mut ice = agent();
    for tuple in 0..8 {
        check(&mut ice, now, tuple, false);
    }
    events(&mut ice);
    check(&mut ice, now, 8, false);
    assert_eq!(events(&mut ice), [TupleRemoved(1), TupleAdded(8)]);
    assert_eq!(ice.tuples().count(), TUPLES_MAX);
}

#[test]
fn media_selects_known_tuples_only_and_removal_falls_back_to_the_front() {
    let now = Instant::now();
    let mut ice = agent();
    check(&mut ice, now, 1, true);
    check(&mut ice, now, 2, false);
    events(&mut ice);
    ice.handle_media(3);
    assert_eq!(events(&mut ice), []);
    ice.handle_media(2);
    assert_eq!(events(&mut ice), [Selected(2)]);
    ice.remove_tuple(2);
    assert_eq!(events(&mut ice), [TupleRemoved(2), Selected(1)]);
    ice.remove_tuple(1);
    assert_eq!(events(&mut ice), [TupleRemoved(1), State(Disconnected)]);
}

#[test]
fn the_default_preference_gives_the_documented_priority() {
    assert_eq!(candidate_priority(20_000), 1_078_862_079);
}

proptest! {
    #[test]
    fn no_bytes_panic(msg in prop::collection::vec(any::<u8>(), 0..200)) {
        let remote = SocketAddr::from(([127, 0, 0, 1], 1));
        let _ = agent().handle_binding(Instant::now(), 1, remote, &msg, &mut Vec::new());
    }
}

#[test]
fn a_resumed_agent_says_nothing_and_goes_on() {
    let now = Instant::now();
    let credentials = agent().credentials().clone();
    let mut ice = IceLite::resumed(now, credentials, 7u8, Completed);
    assert_eq!((ice.selected(), ice.state()), (Some(7), Completed));
    assert!(ice.is_known(7));
    check(&mut ice, now, 7, true);
    assert_eq!(events(&mut ice), []);
    assert_eq!(ice.poll_timeout(), Some(now + CONSENT_TIMEOUT));
    ice.handle_timeout(now + CONSENT_TIMEOUT);
    assert_eq!(events(&mut ice), [State(Disconnected)]);
    check(&mut ice, now, 8, false);
    assert_eq!(
        events(&mut ice),
        [TupleAdded(8), Selected(8), State(Connected)]
    );
}
