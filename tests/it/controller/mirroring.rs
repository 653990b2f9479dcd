//! Mirroring as an application asks for it; `crate::mirroring` has what is copied.

use std::net::{IpAddr, UdpSocket};

use broth::MirroringOptions;

use super::media::{connect_sender, send_vp8};
use super::support::{House, PATIENCE, vp8};

#[tokio::test]
async fn a_mirrored_transport_is_copied_until_it_is_stopped() {
    let house = House::new(127).await;
    let alice = house.join("alice");
    let sender = connect_sender(&alice, 1).await;
    alice.produce(2, 1, vp8(1000)).await;
    let transport = alice.web_rtc(1);
    let tool = UdpSocket::bind("127.0.0.1:0").unwrap();
    tool.set_read_timeout(Some(PATIENCE)).unwrap();
    let all = MirroringOptions::new(tool.local_addr().unwrap());
    assert!(all.send_rtp && all.send_rtcp && all.recv_rtp && all.recv_rtcp);
    let loopback = IpAddr::from([127, 0, 0, 1]);
    // Nothing to stop is no reason to refuse.
    transport.stop_mirroring().await.unwrap();
    for (seq, local_ip) in [(0, None), (1, Some(loopback))] {
        let options = MirroringOptions {
            local_ip,
            send_rtcp: false,
            recv_rtcp: false,
            ..all
        };
        transport.start_mirroring(options).await.unwrap();
        let refused = transport.start_mirroring(options).await.unwrap_err();
        assert_eq!(refused.to_string(), "Transport is already mirroring");
        send_vp8(&sender, 1000, seq, true);
        let socket = tool.try_clone().unwrap();
        let receiving = move || socket.recv_from(&mut [0; 2048]).unwrap();
        let (_, from) = tokio::task::spawn_blocking(receiving).await.unwrap();
        assert_eq!(from.ip(), loopback);
        // Without an address of its own it has one of the server's ports.
        let is_of_range = super::support::ports(127).contains(&from.port());
        assert_eq!(is_of_range, local_ip.is_none(), "{from}");
        transport.stop_mirroring().await.unwrap();
    }
    for (options, expected) in [
        (
            MirroringOptions::new("[::1]:9".parse().unwrap()),
            "IPv6 disabled",
        ),
        (
            MirroringOptions {
                local_ip: Some([192, 0, 2, 1].into()),
                ..all
            },
            "cannot open 192.0.2.1",
        ),
    ] {
        let refused = transport.start_mirroring(options).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    house.server.close().await;
}
