//! The helper with plans that nobody of ours would send.

use super::*;
use std::time::Duration;

/// What the helper says of a plan before it is gone.
fn answer(bytes: Vec<u8>) -> Vec<Event> {
    let directory = tempfile::tempdir().expect("directory");
    let program = sys::helper_program(directory.path()).expect("program");
    let encoded = encode::Encoded {
        bytes,
        fds: Vec::new(),
    };
    let helper = Helper::spawn(c"rdock-helper", program, 0, None, &encoded).expect("spawn");
    let mut events = Vec::new();
    // Long enough for the slowest machine; one that hangs fails the test.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match helper.wait_event(Some(deadline)).expect("event") {
            Some(Event::Gone) => return events,
            Some(event) => events.push(event),
            None => panic!("the helper says nothing"),
        }
    }
}

/// Refused while it is read, or before anything was made.
fn is_refused(events: &[Event]) -> bool {
    matches!(events.last(), Some(Event::Failed { .. }))
}

/// A plan that is read to its end, and names a state directory that is not there.
fn plan() -> Vec<u8> {
    let plan = LaunchPlan {
        state_dir: "/none/at/all".into(),
        hostname: Some("a-name".into()),
        pid: NamespacePlan::Host,
        process: ProcessPlan {
            args: vec![b"/bin/true".to_vec()],
            env: vec![b"A=b".to_vec()],
            cwd: "/".into(),
            ..ProcessPlan::default()
        },
        ..LaunchPlan::default()
    };
    encode::launch(plan).expect("encode").bytes
}

#[test]
fn rt_plan_buffer_a_plan_that_is_cut_off_is_refused() {
    let whole = plan();
    for length in (0..whole.len()).step_by(5) {
        let events = answer(whole[..length].to_vec());
        assert!(is_refused(&events), "{length}: {events:?}");
    }
}

#[test]
fn rt_plan_buffer_lengths_at_the_limits_of_their_type_are_refused() {
    let whole = plan();
    // The first field is the length of the first part, then comes an operation and the length of its path.
    for at in [0, 4, 8] {
        for value in [
            u32::MAX,
            u32::MAX - 1,
            i32::MAX as u32,
            1 << 31,
            whole.len() as u32 + 1,
        ] {
            let mut bytes = whole.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let events = answer(bytes);
            assert!(is_refused(&events), "{value} at {at}: {events:?}");
        }
    }
    assert!(is_refused(&answer(Vec::new())));
    assert!(is_refused(&answer(vec![0xff; 4096])));
}
