use std::sync::{Arc, Mutex};

use broth_ipc::body::{Empty, Load};
use broth_ipc::{Rejection, RouterId};
use serde_json::json;

use super::*;

struct Ends {
    channel: WorkerChannel,
    task: JoinHandle<ChannelEnd>,
    worker: Channel,
    seen: Arc<Mutex<Vec<u32>>>,
}

fn ends() -> Ends {
    let (a, b) = UnixStream::pair().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handle = move |event: Notification| log.lock().unwrap().push(event.target.target_id);
    let (channel, task) = WorkerChannel::start(a, handle).unwrap();
    let worker = Channel::new(b, PAYLOAD_BYTES_MAX).unwrap();
    Ends {
        channel,
        task,
        worker,
        seen,
    }
}

async fn next_request(worker: &mut Channel) -> Request {
    match worker.next().await.unwrap() {
        Received::Payload(payload) => Request::parse(&payload).unwrap().request.unwrap(),
        Received::Eof => panic!("channel closed"),
    }
}

fn respond(worker: &mut Channel, id: u32, result: std::result::Result<Value, Rejection>) {
    let payload = Response { id, result }.to_payload().unwrap();
    worker.send(&payload, vec![]).unwrap();
}

fn load() -> Call {
    Call::GetLoad(Empty::default())
}

#[tokio::test]
async fn answers_find_their_requests_out_of_order() {
    let mut ends = ends();
    let (one, two) = (ends.channel.clone(), ends.channel.clone());
    let one = tokio::spawn(async move { one.request(Ids::NONE, load(), vec![]).await });
    let first = next_request(&mut ends.worker).await;
    let two = tokio::spawn(async move { two.request(Ids::NONE, load(), vec![]).await });
    let second = next_request(&mut ends.worker).await;
    respond(&mut ends.worker, second.id, Err(Rejection::invalid("no")));
    let body = serde_json::to_value(Load::default()).unwrap();
    respond(&mut ends.worker, first.id, Ok(body.clone()));
    assert_eq!(one.await.unwrap(), Ok(body));
    let refused = Err(Error::Refused(Rejection::invalid("no")));
    assert_eq!(two.await.unwrap(), refused);
}

#[tokio::test]
async fn notifications_are_handled_before_the_answer_that_follows_them() {
    let mut ends = ends();
    let seen = Arc::clone(&ends.seen);
    let (done, answered) = oneshot::channel();
    ends.channel.send_then(Ids::router(RouterId(1)), load(), {
        move |_| drop(done.send(seen.lock().unwrap().clone()))
    });
    let request = next_request(&mut ends.worker).await;
    for id in [7, 8] {
        let payload = json!({ "targetId": id, "event": "sourcepaused" }).to_string();
        ends.worker.send(payload.as_bytes(), vec![]).unwrap();
    }
    respond(&mut ends.worker, request.id, Ok(json!({})));
    assert_eq!(answered.await.unwrap(), [7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_lost() {
    let ends = ends();
    let answer = ends.channel.request(Ids::NONE, load(), vec![]).await;
    assert_eq!(answer, Err(Error::Timeout));
    // One that is killed for it is not to see its controller go before.
    assert!(ends.task.await.unwrap().given_up.is_some());
    let late = ends.channel.request(Ids::NONE, load(), vec![]).await;
    assert_eq!(late, Err(Error::ChannelClosed));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_said_is_read_at_once_however_slow_its_channel_was() {
    let delay = Duration::from_secs(1);
    for is_hurried in [true, false] {
        let mut ends = ends();
        let until = StdInstant::now() + Duration::from_secs(3600);
        ends.channel
            .disturb(ChannelFault::Slow { delay, until })
            .unwrap();
        tokio::task::yield_now().await;
        for _ in 0..20 {
            let payload = json!({ "targetId": 7, "event": "sourcepaused" }).to_string();
            ends.worker.send(payload.as_bytes(), vec![]).unwrap();
        }
        drop(ends.worker);
        let began = Instant::now();
        if is_hurried {
            ends.channel.hurry();
        }
        ends.task.await.unwrap();
        assert_eq!(*ends.seen.lock().unwrap(), [7; 20]);
        // On the paused clock.
        assert_eq!(began.elapsed() < delay, is_hurried);
    }
}

#[tokio::test]
async fn the_end_of_the_channel_ends_every_request() {
    let mut ends = ends();
    let channel = ends.channel.clone();
    let waiting = tokio::spawn(async move { channel.request(Ids::NONE, load(), vec![]).await });
    next_request(&mut ends.worker).await;
    drop(ends.worker);
    let left = ends.task.await.unwrap();
    assert_eq!(left.unanswered.len(), 1);
    assert!(left.given_up.is_none());
    // Nobody answers it elsewhere.
    drop(left);
    assert_eq!(waiting.await.unwrap(), Err(Error::ChannelClosed));
    let late = ends.channel.request(Ids::NONE, load(), vec![]).await;
    assert_eq!(late, Err(Error::ChannelClosed));
}
