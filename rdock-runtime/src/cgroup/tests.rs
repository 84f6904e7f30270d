//! Groups on this machine's hierarchies.

use super::*;

fn id(number: u32) -> String {
    format!("{:032x}{:032x}", std::process::id(), number)
}

fn made(place: Place) -> (Cgroup, Vec<PathBuf>) {
    let made = create(place, &Resources::default(), None);
    // Without the right to make groups `create` does without, instead of failing.
    let (cgroup, joining) = made.expect("create");
    drop(joining);
    let paths = cgroup.paths();
    assert!(paths.iter().all(|path| path.is_dir()));
    (cgroup, paths)
}

#[test]
fn a_removed_group_is_gone_and_removing_it_again_is_no_error() {
    let place = Place::new(&id(0), None);
    let (cgroup, paths) = made(place.clone());
    cgroup.remove().expect("remove");
    assert!(!paths.iter().any(|path| path.exists()));
    remove_all(&place).expect("again");
}

#[test]
fn rt_cgroup_path_a_parent_that_was_made_goes_with_its_last_container() {
    let parent = format!("rdock-test-{}/below", std::process::id());
    let (first, second) = (
        Place::new(&id(1), Some(&parent)),
        Place::new(&id(2), Some(&parent)),
    );
    let (one, paths) = made(first);
    let (other, _) = made(second);
    let parents: Vec<_> = paths.iter().filter_map(|path| path.parent()).collect();
    one.remove().expect("remove");
    assert!(parents.iter().all(|parent| parent.is_dir()));
    other.remove().expect("remove");
    assert!(!parents.iter().any(|parent| parent.exists()));
    let above: Vec<_> = parents.iter().filter_map(|parent| parent.parent()).collect();
    assert!(!above.iter().any(|parent| parent.exists()));
}
