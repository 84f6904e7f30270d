//! What happens in a root is seen by every process of it, as it happens and afterwards.

use crate::probe::{Place, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Event, EventAction, EventKind, Events, Runtime, blocking};
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("events_tell_the_life_of_a_container_in_order", life),
        trial("events_of_a_monitor_reach_another_process_as_they_happen", live),
        trial("events_are_replayed_between_two_moments", replay),
        trial("events_name_what_happens_to_images", images),
        trial("events_name_what_happens_to_volumes", volumes),
    ]
}

/// Everything recorded so far, as `action` words.
fn recorded(events: Events) -> Tested<Vec<Event>> {
    let mut events = events.follow(false);
    let mut all = Vec::new();
    while let Some(event) = events.next_blocking()? {
        all.push(event);
    }
    Ok(all)
}

fn words(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.action.to_string()).collect()
}

fn life() -> Tested {
    let place = Place::new()?;
    let id = blocking::wait(async {
        let spec = probe(&["sleep 60000"])?.name("life").label("tier", "web");
        let container = spec.start(&place.runtime).await?;
        let exec = container.exec(["/test"]).env("PROBE", "exit 3");
        exec.output().await?;
        container.stop(Some(Duration::ZERO)).await?;
        let id = container.id().to_owned();
        container.remove().await?;
        Ok::<_, Box<dyn std::error::Error>>(id)
    })??;
    let events = recorded(place.runtime.events().kind(EventKind::Container))?;
    let expected = [
        "create",
        "start",
        "exec_create: /test",
        "exec_start: /test",
        "exec_die",
        "kill",
        "die",
        "stop",
        "destroy",
    ];
    // SIGKILL may follow the stop signal before or after the journal has it; nothing else varies.
    same(&words(&events), &expected.map(str::to_owned).to_vec())?;
    same(&events.is_sorted_by_key(|event| event.time_nanos), &true)?;
    for event in &events {
        same(
            &(event.id.as_str(), event.kind),
            &(id.as_str(), EventKind::Container),
        )?;
        same(&event.attribute("name"), &Some("life"))?;
        same(&event.attribute("tier"), &Some("web"))?;
        same(&event.attribute("image"), &Some("probe"))?;
    }
    let code = |action| {
        let found = events.iter().find(|event| event.action == action);
        found
            .and_then(|event| event.attribute("exitCode"))
            .map(str::to_owned)
    };
    same(&code(EventAction::ExecDie), &Some("3".to_owned()))?;
    same(&code(EventAction::Die), &Some("137".to_owned()))
}

fn live() -> Tested {
    let place = Place::new()?;
    // What is there before is not part of the stream.
    place.run(&probe(&["say before"])?)?;
    let mut stream = Runtime::open(place.root.path())?.events().container("live");
    let mut blocked = Runtime::open(place.root.path())?
        .events()
        .action(EventAction::Die);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Ends with the test: the other side is gone then.
        while let Ok(Some(event)) = blocked.next_blocking() {
            if tell.send(event).is_err() {
                break;
            }
        }
    });
    blocking::wait(async {
        let spec = probe(&["sleep 60000"])?.name("live");
        let container = spec.start_detached(&place.runtime).await?;
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.extend(stream.next().await?);
        }
        same(&words(&seen), &vec!["create", "start"])?;
        container.kill("KILL").await?;
        for _ in 0..2 {
            seen.extend(stream.next().await?);
        }
        same(&words(&seen)[2..].to_vec(), &vec!["kill", "die"])?;
        same(&seen[2].attribute("signal"), &Some("9"))?;
        // Whoever hears of the end finds it recorded.
        same(
            &matches!(container.status()?, rdock_runtime::Status::Exited(_)),
            &true,
        )?;
        container.remove_with(false, true).await?;
        same(
            &stream.next().await?.map(|event| event.action),
            &Some(EventAction::Destroy),
        )?;
        let heard = told.recv_timeout(Duration::from_secs(20))?;
        same(&heard.attribute("exitCode"), &Some("137"))?;
        // A stream that is waited for until a moment ends then.
        let until = jiff::Timestamp::now() + Duration::from_millis(100);
        let mut short = place
            .runtime
            .events()
            .container("live")
            .until(&until.to_string())?;
        let mut last = None;
        while let Some(event) = short.next().await? {
            last = Some(event.action);
        }
        same(&last, &Some(EventAction::Destroy))?;
        same(&(jiff::Timestamp::now() >= until), &true)
    })?
}

fn replay() -> Tested {
    let place = Place::new()?;
    for name in ["one", "two", "three"] {
        place.run(&probe(&["say x"])?.name(name))?;
    }
    let starts = recorded(place.runtime.events().action(EventAction::Start))?;
    let names: Vec<_> = starts.iter().map(|event| event.attribute("name")).collect();
    same(&names, &vec![Some("one"), Some("two"), Some("three")])?;
    let [_, second, third] = starts.as_slice() else {
        return Err("not three".into());
    };
    let between = || place.runtime.events().action(EventAction::Start);
    let found = recorded(
        between()
            .since_nanos(second.time_nanos)
            .until_nanos(third.time_nanos - 1),
    )?;
    same(&found, &vec![second.clone()])?;
    // The same as text, to the nanosecond.
    let found = recorded(between().since(&third.time())?)?;
    same(&found, &vec![third.clone()])?;
    // A past end needs no waiting.
    let mut past = between().since("1h")?.until_nanos(second.time_nanos);
    let mut count = 0;
    while past.next_blocking()?.is_some() {
        count += 1;
    }
    same(&count, &2)
}

fn images() -> Tested {
    let place = Place::new()?;
    let store = place.runtime.images();
    let image = store.get("probe")?.ok_or("no image")?;
    store.tag(&image, &rdock_runtime::image::Reference::parse("other:1")?)?;
    store.remove("other:1", false)?;
    store.remove("probe", false)?;
    let events = recorded(place.runtime.events().kind(EventKind::Image))?;
    let told: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event.action, event.attribute("name").unwrap_or("none")))
        .collect();
    let id = image.id().to_string();
    let expected = [
        "create probe:latest",
        "tag other:1",
        "untag other:1",
        "untag probe:latest",
    ];
    let mut expected: Vec<String> = expected.iter().map(|&told| told.to_owned()).collect();
    expected.push(format!("delete {id}"));
    same(&told, &expected)?;
    same(&events.iter().all(|event| event.id == id), &true)
}

fn volumes() -> Tested {
    let place = Place::new()?;
    let mount = rdock_runtime::Mount::volume("data", "/data");
    place.run(&probe(&["say x"])?.name("user").mount(mount))?;
    place.runtime.volumes().remove("data", false)?;
    let events = recorded(place.runtime.events().kind(EventKind::Volume))?;
    same(&words(&events), &vec!["create", "mount", "unmount", "destroy"])?;
    same(&events.iter().all(|event| event.id == "data"), &true)?;
    same(&events[1].attribute("destination"), &Some("/data"))?;
    // A volume's events are found by the container too.
    let id = events[1].attribute("container").ok_or("no container")?;
    let found = recorded(place.runtime.events().container(id).kind(EventKind::Volume))?;
    same(&words(&found), &vec!["mount", "unmount"])
}
