//! `router.suspend`: a worker lets go of a router for another one.

use broth_client::worker::DrivenWorker;
use broth_ipc::body::Empty;
use broth_ipc::{Call, Ids};

use crate::support::ROUTER;

fn suspend(worker: &mut DrivenWorker) -> Result<(), String> {
    let call = Call::SuspendRouter(Empty {});
    let answer = worker.call(Ids::router(ROUTER), call);
    answer.map(drop).map_err(|error| error.to_string())
}

fn dump(worker: &mut DrivenWorker) -> Result<(), String> {
    let answer = worker.call(Ids::router(ROUTER), Call::DumpRouter(Empty {}));
    answer.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_router_that_nobody_could_go_on_with_stays() {
    let mut worker = DrivenWorker::in_thread().unwrap();
    let missing = suspend(&mut worker).unwrap_err();
    assert!(missing.contains("Router does not exist"), "{missing}");
    worker.create_router(ROUTER).unwrap();
    let refused = suspend(&mut worker).unwrap_err();
    assert!(refused.contains("Router has no recorder"), "{refused}");
    assert_eq!(dump(&mut worker), Ok(()));
}

#[test]
fn a_router_is_let_go_once_and_its_id_is_free() {
    let mut worker = DrivenWorker::in_thread().unwrap();
    for _ in 0..2 {
        worker.create_recorded_router(ROUTER).unwrap();
        assert_eq!(dump(&mut worker), Ok(()));
        assert_eq!(suspend(&mut worker), Ok(()));
        let gone = [suspend(&mut worker), dump(&mut worker)].map(Result::unwrap_err);
        assert!(
            gone.iter()
                .all(|error| error.contains("Router does not exist")),
            "{gone:?}"
        );
    }
}
