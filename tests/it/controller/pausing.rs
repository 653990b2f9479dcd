//! Who may pause what, and who is told (`spec: protocol.md` §5).

use broth::{Consumer, ConsumerEvent, Originator, Producer, ProducerEvent};
use serde_json::{Value, json};

use super::support::{Client, House, opus, pending, producer};

/// A step of one of the sides that can pause.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    AppPauses,
    AppResumes,
    ClientPauses,
    ClientResumes,
    SourcePauses,
    SourceResumes,
}
use Step::{AppPauses, AppResumes, ClientPauses, ClientResumes, SourcePauses, SourceResumes};

/// One step, what the receiving client is told, and whether the consumer is paused then.
type Row = (Step, Option<&'static str>, bool);

const P: Option<&str> = Some("consumerPaused");
const R: Option<&str> = Some("consumerResumed");

#[tokio::test]
async fn a_receiver_hears_of_the_sum_of_application_and_source_alone() {
    let sequences: [&[Row]; 7] = [
        &[(SourcePauses, P, true), (SourceResumes, R, false)],
        &[(AppPauses, P, true), (AppResumes, R, false)],
        &[(ClientPauses, None, true), (ClientResumes, None, false)],
        &[
            (AppPauses, P, true),
            (SourcePauses, None, true),
            (AppResumes, None, true),
            (SourceResumes, R, false),
        ],
        &[
            (SourcePauses, P, true),
            (AppPauses, None, true),
            (SourceResumes, None, true),
            (AppResumes, R, false),
        ],
        &[
            (ClientPauses, None, true),
            (SourcePauses, P, true),
            (ClientResumes, None, true),
            (SourceResumes, R, false),
        ],
        &[
            (AppPauses, P, true),
            (ClientPauses, None, true),
            (AppResumes, R, true),
            (ClientResumes, None, false),
            // Twice is once.
            (AppResumes, None, false),
            (SourcePauses, P, true),
            (SourcePauses, None, true),
            (SourceResumes, R, false),
            (ClientResumes, None, false),
        ],
    ];
    let house = House::new(30).await;
    let mut pair = Pair::new(&house).await;
    let mut events = pair.consumer.events();
    pending(&mut events);
    for sequence in sequences {
        for &(step, told, is_paused) in sequence {
            let was = pair.flag(step);
            pair.take(step).await;
            let expected: Vec<Value> = told
                .map(|method| pair.told(step, method))
                .into_iter()
                .collect();
            assert_eq!(pair.bob.told().await, expected, "{step:?} of {sequence:?}");
            assert_eq!(
                pair.consumer.paused(),
                is_paused,
                "{step:?} of {sequence:?}"
            );
            let dump = pair.consumer.dump().await.unwrap();
            assert_eq!(dump.paused || dump.source_paused, is_paused, "{step:?}");
            let changed = was != pair.flag(step);
            let seen: Vec<_> = pending(&mut events).into_iter().map(described).collect();
            let expected = changed.then(|| expected_event(step));
            assert_eq!(seen, Vec::from_iter(expected), "{step:?} of {sequence:?}");
        }
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_consumer_that_is_not_enabled_is_silent_and_tells_the_truth_when_it_is() {
    let house = House::new(31).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let mut members = producer(3, 1, opus(1000));
    members["paused"] = json!(true);
    alice.request("createProducer", members).await.unwrap();
    let source = alice.peer.get_producer_by_id(3).unwrap();
    assert!(source.remotely_paused() && !source.locally_paused() && source.paused());
    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    let told = bob.told().await;
    assert_eq!((told.len(), &told[0]["paused"]), (1, &json!(true)));
    assert!(consumer.pause(None));
    alice.notify("resumeProducer", json!({ "id": 3 })).await;
    assert!(bob.told().await.is_empty());
    assert!(!consumer.source_paused() && consumer.locally_paused());
    let members = json!({ "id": consumer.id(), "transportId": 2, "paused": true });
    let answer = bob.request("enableConsumer", members).await.unwrap();
    assert_eq!(answer["paused"], true);
    // The client's own pause is not in the answer, so only the application's is taken back.
    assert!(!consumer.resume(None));
    let told = bob.told().await;
    assert_eq!(told[0]["method"], "consumerResumed");
    house.server.close().await;
}

#[tokio::test]
async fn a_producer_paused_by_both_sides_needs_both_to_resume() {
    let house = House::new(32).await;
    let mut pair = Pair::new(&house).await;
    let source = pair.source.clone();
    let mut events = source.events();
    let id = source.id();
    let own = |method: &str, data: u32| json!({ "method": method, "id": id, "peerName": "alice", "appData": data });
    assert!(source.pause(Some(json!(1))));
    assert_eq!(pair.alice.told().await, [own("producerPaused", 1)]);
    assert!(source.pause(Some(json!(2))));
    pair.alice
        .notify("pauseProducer", json!({ "id": id, "appData": 3 }))
        .await;
    assert!(pair.alice.told().await.is_empty());
    assert!(source.locally_paused() && source.remotely_paused());
    assert!(!source.resume(Some(json!(4))));
    assert_eq!(pair.alice.told().await, [own("producerResumed", 4)]);
    assert!(source.paused());
    pair.alice
        .notify("resumeProducer", json!({ "id": id }))
        .await;
    assert!(!source.paused());
    let seen = pending(&mut events).into_iter().map(|event| match event {
        ProducerEvent::Pause {
            originator,
            app_data,
        } => ("pause", originator, app_data),
        ProducerEvent::Resume {
            originator,
            app_data,
        } => ("resume", originator, app_data),
        ProducerEvent::Close { .. } => panic!("it is open"),
    });
    let seen: Vec<_> = seen.collect();
    let expected = [
        ("pause", Originator::Local, Some(json!(1))),
        ("pause", Originator::Remote, Some(json!(3))),
        ("resume", Originator::Local, Some(json!(4))),
        ("resume", Originator::Remote, None),
    ];
    assert_eq!(seen, expected);
    // The receiver hears of the sum: one pause, one resume.
    let methods: Vec<_> = pair.bob.told().await;
    let methods: Vec<_> = methods.iter().map(|m| &m["method"]).collect();
    assert_eq!(methods, ["consumerPaused", "consumerResumed"]);
    source.close(Some(json!(5)));
    assert_eq!(pair.alice.told().await, [own("producerClosed", 5)]);
    assert!(!source.pause(None) && !source.resume(None));
    assert!(pair.alice.told().await.is_empty());
    house.server.close().await;
}

#[tokio::test]
async fn data_of_a_pause_is_that_of_its_event() {
    let house = House::new(128).await;
    let pair = Pair::new(&house).await;
    let (consumer, id) = (pair.consumer.clone(), pair.consumer.id());
    let mut events = consumer.events();
    pending(&mut events);
    consumer.pause(Some(json!(1)));
    let members = json!({ "id": id, "appData": 2 });
    pair.bob.notify("pauseConsumer", members).await;
    pair.source.pause(Some(json!(3)));
    house.room.dump().await.unwrap();
    consumer.resume(Some(json!(4)));
    let members = json!({ "id": id, "appData": { "five": 5 } });
    pair.bob.notify("resumeConsumer", members).await;
    pair.source.resume(Some(json!(6)));
    house.room.dump().await.unwrap();
    let seen = pending(&mut events).into_iter().map(|event| match event {
        ConsumerEvent::Pause {
            originator,
            app_data,
        } => (true, originator, app_data),
        ConsumerEvent::Resume {
            originator,
            app_data,
        } => (false, originator, app_data),
        other => panic!("{other:?}"),
    });
    let expected = [
        (true, Originator::Local, Some(json!(1))),
        (true, Originator::Remote, Some(json!(2))),
        // Of its source it learns from the worker, which knows no data.
        (true, Originator::Source, None),
        (false, Originator::Local, Some(json!(4))),
        (false, Originator::Remote, Some(json!({ "five": 5 }))),
        (false, Originator::Source, None),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    house.server.close().await;
}

fn expected_event(step: Step) -> (&'static str, Originator) {
    match step {
        AppPauses => ("pause", Originator::Local),
        AppResumes => ("resume", Originator::Local),
        ClientPauses => ("pause", Originator::Remote),
        ClientResumes => ("resume", Originator::Remote),
        SourcePauses => ("pause", Originator::Source),
        SourceResumes => ("resume", Originator::Source),
    }
}

fn described(event: ConsumerEvent) -> (&'static str, Originator) {
    match event {
        ConsumerEvent::Pause { originator, .. } => ("pause", originator),
        ConsumerEvent::Resume { originator, .. } => ("resume", originator),
        other => panic!("{other:?}"),
    }
}

/// Alice's producer and bob's enabled consumer of it.
struct Pair {
    alice: Client,
    bob: Client,
    source: Producer,
    consumer: Consumer,
}

impl Pair {
    async fn new(house: &House) -> Self {
        let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
        alice.create_transport(1, "send").await;
        bob.create_transport(2, "recv").await;
        let source = alice.produce(3, 1, opus(1000)).await;
        let consumer = bob.consume(&source, 2).await;
        alice.told().await;
        bob.told().await;
        Self {
            alice,
            bob,
            source,
            consumer,
        }
    }

    async fn take(&self, step: Step) {
        let (id, data) = (self.consumer.id(), Some(json!(format!("{step:?}"))));
        match step {
            AppPauses => drop(self.consumer.pause(data)),
            AppResumes => drop(self.consumer.resume(data)),
            ClientPauses => self.bob.notify("pauseConsumer", json!({ "id": id })).await,
            ClientResumes => self.bob.notify("resumeConsumer", json!({ "id": id })).await,
            SourcePauses => drop(self.source.pause(data)),
            SourceResumes => drop(self.source.resume(data)),
        }
        // Until the worker has told what the step caused.
        self.bob.peer.room().dump().await.unwrap();
    }

    fn flag(&self, step: Step) -> bool {
        match step {
            AppPauses | AppResumes => self.consumer.locally_paused(),
            ClientPauses | ClientResumes => self.consumer.remotely_paused(),
            SourcePauses | SourceResumes => self.consumer.source_paused(),
        }
    }

    /// Only the application's own doing carries its data.
    fn told(&self, step: Step, method: &str) -> Value {
        let mut message = json!({ "method": method, "id": self.consumer.id(),
            "peerName": "alice" });
        if matches!(step, AppPauses | AppResumes) {
            message["appData"] = json!(format!("{step:?}"));
        }
        message
    }
}
