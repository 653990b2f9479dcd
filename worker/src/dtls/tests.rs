use super::*;
use proptest::prelude::*;

struct Side {
    dtls: Dtls,
    certificate: Certificate,
    keys: Option<SrtpKeys>,
    states: Vec<DtlsState>,
}

impl Side {
    fn new(profiles: &[Profile]) -> Self {
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate, profiles).unwrap();
        Self {
            dtls: Dtls::new(&context).unwrap(),
            certificate,
            keys: None,
            states: Vec::new(),
        }
    }

    fn collect(&mut self) {
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::State(state) => self.states.push(state),
                DtlsEvent::Connected { keys, remote_cert } => {
                    assert!(remote_cert.starts_with("-----BEGIN CERTIFICATE-----"));
                    self.keys = Some(*keys);
                    self.states.push(DtlsState::Connected);
                }
            }
        }
    }
}

/// A client and a server that know each other's fingerprints.
fn pair(client_profiles: &[Profile], server_profiles: &[Profile]) -> (Side, Side) {
    let now = Instant::now();
    let mut client = Side::new(client_profiles);
    let mut server = Side::new(server_profiles);
    let fingerprints = server.certificate.fingerprints();
    let role = client.dtls.set_remote(now, DtlsRole::Server, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Client);
    let fingerprints = client.certificate.fingerprints();
    let role = server.dtls.set_remote(now, DtlsRole::Client, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Server);
    (client, server)
}

/// A client that knows its server, and a server that was told nothing yet.
fn undecided_server_pair() -> (Side, Side) {
    let (mut client, server) = (Side::new(&Profile::ALL), Side::new(&Profile::ALL));
    let fingerprints = server.certificate.fingerprints();
    let role = client
        .dtls
        .set_remote(Instant::now(), DtlsRole::Server, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Client);
    (client, server)
}

/// Carries datagrams until none are left; `deliver` may change, drop or repeat them.
fn drive(a: &mut Side, b: &mut Side, mut deliver: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) {
    let now = Instant::now();
    loop {
        let mut is_quiet = true;
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = if (from, to) == (0, 1) {
                (&mut *a, &mut *b)
            } else {
                (&mut *b, &mut *a)
            };
            while let Some(datagram) = from.dtls.poll_transmit() {
                is_quiet = false;
                for datagram in deliver(datagram) {
                    to.dtls.handle_datagram(now, &datagram);
                }
            }
        }
        a.collect();
        b.collect();
        if is_quiet {
            return;
        }
    }
}

fn connect(client: &mut Side, server: &mut Side) {
    let now = Instant::now();
    server.dtls.handle_ice_connected(now);
    client.dtls.handle_ice_connected(now);
    drive(client, server, |datagram| vec![datagram]);
}

fn assert_keys_mirror(a: &Side, b: &Side, profile: Profile) {
    let (a, b) = (a.keys.as_ref().unwrap(), b.keys.as_ref().unwrap());
    assert_eq!((a.profile, b.profile), (profile, profile));
    assert_eq!(
        (&a.local_key, &a.local_salt),
        (&b.remote_key, &b.remote_salt)
    );
    assert_eq!(
        (&b.local_key, &b.local_salt),
        (&a.remote_key, &a.remote_salt)
    );
    assert_eq!(a.local_key.len(), profile.key_len());
    assert_ne!(a.local_key, a.remote_key);
}

#[test]
fn every_profile_connects_and_the_keys_mirror_each_other() {
    for profile in Profile::ALL {
        let (mut client, mut server) = pair(&[profile], &Profile::ALL);
        connect(&mut client, &mut server);
        assert_keys_mirror(&client, &server, profile);
        assert_eq!(client.states, [DtlsState::Connecting, DtlsState::Connected]);
        assert_eq!(server.states, [DtlsState::Connecting, DtlsState::Connected]);
    }
}

#[test]
fn the_server_decides_the_profile() {
    let mut reversed = Profile::ALL;
    reversed.reverse();
    let (mut client, mut server) = pair(&reversed, &Profile::ALL);
    connect(&mut client, &mut server);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn no_common_profile_fails() {
    let (mut client, mut server) = pair(&Profile::ALL[..1], &Profile::ALL[1..]);
    connect(&mut client, &mut server);
    assert_eq!(server.states.last(), Some(&DtlsState::Failed));
    assert!(server.keys.is_none());
}

#[test]
fn a_wrong_fingerprint_fails_on_the_side_that_sees_it() {
    let now = Instant::now();
    let mut client = Side::new(&Profile::ALL);
    let mut server = Side::new(&Profile::ALL);
    let wrong = client.certificate.fingerprints();
    client
        .dtls
        .set_remote(now, DtlsRole::Server, &wrong)
        .unwrap();
    let right = client.certificate.fingerprints();
    server
        .dtls
        .set_remote(now, DtlsRole::Client, &right)
        .unwrap();
    connect(&mut client, &mut server);
    assert_eq!(client.states, [DtlsState::Connecting, DtlsState::Failed]);
    assert!(client.keys.is_none());
    assert_eq!(server.states.last(), Some(&DtlsState::Closed));
}

#[test]
fn fingerprints_compare_in_any_case() {
    let now = Instant::now();
    let mut client = Side::new(&Profile::ALL);
    let mut server = Side::new(&Profile::ALL);
    let lower: Vec<Fingerprint> = server
        .certificate
        .fingerprints()
        .into_iter()
        .map(|fingerprint| Fingerprint {
            value: fingerprint.value.to_lowercase(),
            ..fingerprint
        })
        .collect();
    client
        .dtls
        .set_remote(now, DtlsRole::Server, &lower)
        .unwrap();
    let fingerprints = client.certificate.fingerprints();
    server
        .dtls
        .set_remote(now, DtlsRole::Client, &fingerprints)
        .unwrap();
    connect(&mut client, &mut server);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn parameters_after_the_handshake_complete_it() {
    let now = Instant::now();
    let mut client = Side::new(&Profile::ALL);
    let mut server = Side::new(&Profile::ALL);
    let fingerprints = server.certificate.fingerprints();
    client
        .dtls
        .set_remote(now, DtlsRole::Server, &fingerprints)
        .unwrap();
    connect(&mut client, &mut server);
    assert_eq!(server.dtls.local_role(), DtlsRole::Server);
    assert!(server.keys.is_none() && client.keys.is_some());
    let fingerprints = client.certificate.fingerprints();
    server
        .dtls
        .set_remote(now, DtlsRole::Client, &fingerprints)
        .unwrap();
    server.collect();
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn parameters_that_reverse_the_role_start_the_handshake_again() {
    let now = Instant::now();
    let mut ours = Side::new(&Profile::ALL);
    ours.dtls.handle_ice_connected(now);
    assert_eq!(ours.dtls.local_role(), DtlsRole::Server);
    let mut peer = Side::new(&Profile::ALL);
    let fingerprints = peer.certificate.fingerprints();
    let role = ours.dtls.set_remote(now, DtlsRole::Server, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Client);
    let fingerprints = ours.certificate.fingerprints();
    peer.dtls
        .set_remote(now, DtlsRole::Client, &fingerprints)
        .unwrap();
    peer.dtls.handle_ice_connected(now);
    drive(&mut ours, &mut peer, |datagram| vec![datagram]);
    assert_keys_mirror(&ours, &peer, Profile::ALL[0]);
    let connecting = DtlsState::Connecting;
    assert_eq!(ours.states, [connecting, connecting, DtlsState::Connected]);
}

#[test]
fn bad_parameters_are_refused_and_can_be_corrected() {
    let now = Instant::now();
    let mut side = Side::new(&Profile::ALL);
    let unknown = Fingerprint {
        algorithm: "md5".into(),
        value: "00".into(),
    };
    for fingerprints in [vec![], vec![unknown]] {
        let error = side.dtls.set_remote(now, DtlsRole::Client, &fingerprints);
        assert_eq!(
            error.unwrap_err().to_string(),
            "unsupported remote fingerprint algorithm"
        );
    }
    let good = side.certificate.fingerprints();
    side.dtls.set_remote(now, DtlsRole::Client, &good).unwrap();
    let error = side.dtls.set_remote(now, DtlsRole::Client, &good);
    assert_eq!(
        error.unwrap_err().to_string(),
        "Transport already has remote DTLS parameters"
    );
}

#[test]
fn duplicated_and_garbage_datagrams_do_no_harm() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    let now = Instant::now();
    server.dtls.handle_ice_connected(now);
    client.dtls.handle_ice_connected(now);
    drive(&mut client, &mut server, |datagram| {
        vec![vec![22; 40], datagram.clone(), datagram]
    });
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn a_goodbye_closes_the_other_side() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    connect(&mut client, &mut server);
    client.dtls.close();
    drive(&mut client, &mut server, |datagram| vec![datagram]);
    assert_eq!(server.states.last(), Some(&DtlsState::Closed));
}

/// With OpenSSL at the other end, in every cipher and in both roles.
#[test]
fn goodbyes_cross_with_openssl() {
    let ciphers = [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ];
    for (cipher, is_client, is_ours_first) in ciphers
        .into_iter()
        .flat_map(|cipher| [(cipher, true), (cipher, false)])
        .flat_map(|(cipher, is_client)| [(cipher, is_client, true), (cipher, is_client, false)])
    {
        let mut ours = Side::new(&Profile::ALL);
        let (role, remote_role) = match is_client {
            true => (DtlsRole::Client, DtlsRole::Server),
            false => (DtlsRole::Server, DtlsRole::Client),
        };
        let theirs = Certificate::generate().unwrap();
        let context = DtlsContext::with_ciphers(&theirs, &Profile::ALL, cipher).unwrap();
        let mut ssl = Ssl::new(&context.0).unwrap();
        ssl.set_mtu(MTU).unwrap();
        match is_client {
            true => ssl.set_accept_state(),
            false => ssl.set_connect_state(),
        }
        let mut stream = SslStream::new(ssl, Datagrams::default()).unwrap();
        let now = Instant::now();
        let fingerprints = theirs.fingerprints();
        let chosen = ours.dtls.set_remote(now, remote_role, &fingerprints);
        assert_eq!(chosen.unwrap(), role);
        ours.dtls.handle_ice_connected(now);
        for _ in 0..10 {
            exchange(&mut ours, &mut stream, |stream| {
                let _ = stream.do_handshake();
            });
        }
        assert_eq!(stream.ssl().current_cipher().unwrap().name(), cipher);
        assert!(ours.keys.is_some() && matches!(ours.dtls.phase, Phase::Associated(_)));

        if is_ours_first {
            ours.dtls.close();
            exchange(&mut ours, &mut stream, |stream| {
                assert_eq!(
                    stream.ssl_read(&mut [0; 10]).unwrap_err().code(),
                    ErrorCode::ZERO_RETURN
                );
            });
        } else {
            stream.shutdown().unwrap();
            exchange(&mut ours, &mut stream, |_| {});
            assert_eq!(ours.states.last(), Some(&DtlsState::Closed), "{cipher}");
        }
    }
}

/// Carries what there is to and from OpenSSL, which works on it in between.
fn exchange(
    ours: &mut Side,
    stream: &mut SslStream<Datagrams>,
    work: impl FnOnce(&mut SslStream<Datagrams>),
) {
    while let Some(datagram) = ours.dtls.poll_transmit() {
        stream.get_mut().push(&datagram);
    }
    work(stream);
    for datagram in stream.get_mut().take_outgoing() {
        ours.dtls.handle_datagram(Instant::now(), &datagram);
    }
    ours.collect();
}

#[test]
fn what_is_not_authentic_says_nothing() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    connect(&mut client, &mut server);
    client.dtls.close();
    let goodbye = client.dtls.poll_transmit().unwrap();
    let now = Instant::now();
    for at in 0..goodbye.len() {
        let mut damaged = goodbye.clone();
        damaged[at] ^= 1;
        server.dtls.handle_datagram(now, &damaged);
        server.dtls.handle_datagram(now, &goodbye[..at]);
        assert_eq!(server.dtls.state(), DtlsState::Connected, "{at}");
        assert!(server.dtls.poll_transmit().is_none());
    }
    // A record may follow another one.
    let two = [&[22; 13 + 0x1616][..], &goodbye].concat();
    server.dtls.handle_datagram(now, &two);
    assert_eq!(server.dtls.state(), DtlsState::Closed);
}

#[test]
fn new_parameters_after_the_end_begin_the_next_association() {
    let now = Instant::now();
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    let wrong = server.certificate.fingerprints();
    let mut stranger = Side::new(&Profile::ALL);
    stranger
        .dtls
        .set_remote(now, DtlsRole::Server, &wrong)
        .unwrap();
    connect(&mut stranger, &mut server);
    assert_eq!(server.states.last(), Some(&DtlsState::Failed));
    assert!(server.keys.is_none());

    let right = client.certificate.fingerprints();
    let role = server.dtls.set_remote(now, DtlsRole::Client, &right);
    assert_eq!(role.unwrap(), DtlsRole::Server);
    assert!(
        server
            .dtls
            .set_remote(now, DtlsRole::Client, &right)
            .is_err()
    );
    connect(&mut client, &mut server);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
    client.dtls.close();
    drive(&mut client, &mut server, |datagram| vec![datagram]);
    assert_eq!(server.states.last(), Some(&DtlsState::Closed));
    assert!(
        server
            .dtls
            .set_remote(now, DtlsRole::Client, &right)
            .is_ok()
    );
}

#[test]
fn a_lost_flight_is_sent_again() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    server.dtls.handle_ice_connected(Instant::now());
    client.dtls.handle_ice_connected(Instant::now());
    while client.dtls.poll_transmit().is_some() {}
    // OpenSSL's own timer runs on the real clock.
    std::thread::sleep(RETRANSMIT_FIRST + Duration::from_millis(100));
    client.dtls.handle_timeout(Instant::now());
    drive(&mut client, &mut server, |datagram| vec![datagram]);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn a_handshake_without_answer_fails_in_the_end() {
    let (mut client, _) = pair(&Profile::ALL, &Profile::ALL);
    let mut now = Instant::now();
    client.dtls.handle_ice_connected(now);
    let started = now;
    while let Some(at) = client.dtls.poll_timeout() {
        now = at;
        client.dtls.handle_timeout(now);
    }
    client.collect();
    assert_eq!(client.states, [DtlsState::Connecting, DtlsState::Failed]);
    assert!(now.duration_since(started) >= HANDSHAKE_TIMEOUT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_datagram_is_survived(datagrams in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 0..8,
    )) {
        let (_, mut server) = pair(&Profile::ALL, &Profile::ALL);
        server.dtls.handle_ice_connected(Instant::now());
        for mut datagram in datagrams {
            if let [first, ..] = datagram.as_mut_slice() {
                *first = 20 + *first % 44;
            }
            server.dtls.handle_datagram(Instant::now(), &datagram);
        }
    }
}

#[test]
fn a_client_hello_in_fragments_is_reassembled() {
    let now = Instant::now();
    let (client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    let mut ssl = Ssl::new(&client.dtls.context.0).unwrap();
    // Today's browsers send more than fits one datagram; here a long list of protocols does.
    let protocols: Vec<u8> = (0..40)
        .flat_map(|n| [9, n + 65, 2, 3, 4, 5, 6, 7, 8, 9])
        .collect();
    ssl.set_alpn_protos(&protocols).unwrap();
    ssl.set_mtu(256).unwrap();
    ssl.set_connect_state();
    let mut stream = SslStream::new(ssl, Datagrams::default()).unwrap();
    server.dtls.handle_ice_connected(now);
    assert!(stream.do_handshake().is_err());
    let hello = stream.get_mut().take_outgoing();
    assert!(hello.len() > 1, "{} datagrams", hello.len());
    for datagram in hello {
        server.dtls.handle_datagram(now, &datagram);
    }
    for _ in 0..10 {
        while let Some(datagram) = server.dtls.poll_transmit() {
            stream.get_mut().push(&datagram);
        }
        let _ = stream.do_handshake();
        for datagram in stream.get_mut().take_outgoing() {
            server.dtls.handle_datagram(now, &datagram);
        }
    }
    server.collect();
    assert_eq!(server.states, [DtlsState::Connecting, DtlsState::Connected]);
}

#[test]
fn parameters_that_reverse_the_role_void_a_finished_handshake() {
    let now = Instant::now();
    let (mut peer, mut ours) = undecided_server_pair();
    connect(&mut peer, &mut ours);
    assert!(peer.keys.is_some());
    assert_eq!(ours.dtls.local_role(), DtlsRole::Server);
    let fingerprints = peer.certificate.fingerprints();
    let role = ours.dtls.set_remote(now, DtlsRole::Auto, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Client);
    ours.collect();
    assert_eq!(ours.states, [DtlsState::Connecting; 2]);

    peer.dtls = Dtls::new(&peer.dtls.context.clone()).unwrap();
    let fingerprints = ours.certificate.fingerprints();
    peer.dtls
        .set_remote(now, DtlsRole::Client, &fingerprints)
        .unwrap();
    peer.dtls.handle_ice_connected(now);
    drive(&mut ours, &mut peer, |datagram| vec![datagram]);
    assert_keys_mirror(&ours, &peer, Profile::ALL[0]);
}

#[test]
fn a_timer_ahead_of_the_one_of_openssl_delays_a_retransmission_only_briefly() {
    let (mut client, _) = pair(&Profile::ALL, &Profile::ALL);
    // A loop that reads its clock once per batch hands in an instant from before.
    let batch_delay = Duration::from_millis(200);
    let started = Instant::now();
    client.dtls.handle_ice_connected(started - batch_delay);
    while client.dtls.poll_transmit().is_some() {}
    while client.dtls.poll_transmit().is_none() {
        let at = client.dtls.poll_timeout().unwrap();
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        client.dtls.handle_timeout(Instant::now());
        assert!(started.elapsed() < RETRANSMIT_FIRST + batch_delay);
    }
}

#[test]
fn a_server_waits_for_the_client_without_end() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    server.dtls.handle_ice_connected(Instant::now());
    assert_eq!(server.dtls.poll_timeout(), None);
    connect(&mut client, &mut server);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn a_goodbye_before_the_fingerprint_is_known_is_a_failure() {
    let (mut client, mut server) = undecided_server_pair();
    connect(&mut client, &mut server);
    assert!(client.keys.is_some());
    client.dtls.close();
    drive(&mut client, &mut server, |datagram| vec![datagram]);
    assert_eq!(server.states, [DtlsState::Connecting, DtlsState::Failed]);
}

#[test]
fn a_lost_last_flight_is_sent_again() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    let now = Instant::now();
    server.dtls.handle_ice_connected(now);
    client.dtls.handle_ice_connected(now);
    // Everything arrives until the server is done; its answer is lost.
    while server.keys.is_none() {
        while let Some(datagram) = client.dtls.poll_transmit() {
            server.dtls.handle_datagram(now, &datagram);
        }
        server.collect();
        while let Some(datagram) = server.dtls.poll_transmit() {
            if server.keys.is_none() {
                client.dtls.handle_datagram(now, &datagram);
            }
        }
    }
    std::thread::sleep(RETRANSMIT_FIRST + Duration::from_millis(100));
    client.dtls.handle_timeout(Instant::now());
    drive(&mut client, &mut server, |datagram| vec![datagram]);
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn datagrams_in_reverse_order_connect() {
    let (mut client, mut server) = pair(&Profile::ALL, &Profile::ALL);
    let now = Instant::now();
    server.dtls.handle_ice_connected(now);
    client.dtls.handle_ice_connected(now);
    for _ in 0..4 {
        for is_from_client in [true, false] {
            let (from, to) = if is_from_client {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            let flight: Vec<_> = std::iter::from_fn(|| from.dtls.poll_transmit()).collect();
            for datagram in flight.iter().rev() {
                to.dtls.handle_datagram(now, datagram);
            }
        }
    }
    client.collect();
    server.collect();
    assert_keys_mirror(&client, &server, Profile::ALL[0]);
}

#[test]
fn five_hundred_pairs_connect_and_tell_their_memory() {
    const PAIRS: usize = 500;
    let contexts = [(); 2].map(|()| {
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate, &Profile::ALL).unwrap();
        (certificate, context)
    });
    let side = |(certificate, context): &(Certificate, DtlsContext)| Side {
        dtls: Dtls::new(context).unwrap(),
        certificate: certificate.clone(),
        keys: None,
        states: Vec::new(),
    };
    let connected_pair = || {
        let [mut client, mut server] = [side(&contexts[0]), side(&contexts[1])];
        let now = Instant::now();
        let fingerprints = server.certificate.fingerprints();
        client
            .dtls
            .set_remote(now, DtlsRole::Server, &fingerprints)
            .unwrap();
        let fingerprints = client.certificate.fingerprints();
        server
            .dtls
            .set_remote(now, DtlsRole::Client, &fingerprints)
            .unwrap();
        connect(&mut client, &mut server);
        assert_keys_mirror(&client, &server, Profile::ALL[0]);
        (client.dtls, server.dtls)
    };
    let warm_up = connected_pair();
    let before = resident_kib();
    let pairs: Vec<_> = (0..PAIRS).map(|_| connected_pair()).collect();
    let grown = resident_kib().saturating_sub(before);
    println!("{} KiB resident per engine", grown / (2 * PAIRS));
    drop((warm_up, pairs));
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap()
}

#[test]
fn a_resumed_endpoint_is_connected_and_deaf() {
    let now = Instant::now();
    let (mut client, server) = pair(&Profile::ALL, &Profile::ALL);
    let context = DtlsContext::new(&server.certificate, &Profile::ALL).unwrap();
    let mut resumed = Dtls::resumed(&context, DtlsRole::Server);
    assert_eq!(resumed.state(), DtlsState::Connected);
    let fingerprints = client.certificate.fingerprints();
    let role = resumed.set_remote(now, DtlsRole::Server, &fingerprints);
    assert_eq!(role.unwrap(), DtlsRole::Server);
    client.dtls.handle_ice_connected(now);
    while let Some(hello) = client.dtls.poll_transmit() {
        resumed.handle_datagram(now, &hello);
    }
    resumed.handle_ice_connected(now);
    assert!(resumed.poll_transmit().is_none() && resumed.poll_event().is_none());
    assert_eq!(resumed.poll_timeout(), None);
    resumed.close();
    assert!(resumed.poll_transmit().is_none());
    assert_eq!(resumed.state(), DtlsState::Closed);
}
