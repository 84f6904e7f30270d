//! The order in which steps are done.

use super::error::{StepError, StepFailure};
use crate::plan::{Plan, Step};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};

/// Does each step of `plan` as soon as those it waits for are done, at most `parallel` at a time. A step that waits
/// for a failed one is not done: `skipped` is told of it and of the one that failed.
pub(super) async fn run<'a, Work>(
    plan: &'a Plan,
    parallel: Option<usize>,
    work: impl Fn(&'a Step) -> Work,
    skipped: impl Fn(&'a Step, usize),
) -> Vec<StepFailure>
where
    Work: Future<Output = Result<(), StepError>>,
{
    let limit = parallel.unwrap_or(usize::MAX);
    let mut missing: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
    for step in &plan.steps {
        for before in &step.after {
            waiting[*before].push(step.id);
        }
    }
    let mut ready: BTreeSet<usize> = (0..plan.steps.len()).filter(|step| missing[*step] == 0).collect();
    let mut failures = BTreeMap::new();
    let mut lost: BTreeSet<usize> = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < limit
            && let Some(id) = ready.pop_first()
        {
            let future = work(&plan.steps[id]);
            running.push(async move { (id, future.await) });
        }
        let Some((id, result)) = running.next().await else {
            break;
        };
        let Err(error) = result else {
            for next in &waiting[id] {
                missing[*next] -= 1;
                if missing[*next] == 0 {
                    ready.insert(*next);
                }
            }
            continue;
        };
        // Everything that waits for it, directly or not, is lost; a step that waits for two failures is told once.
        let mut open = waiting[id].clone();
        let mut for_this = BTreeSet::new();
        while let Some(next) = open.pop() {
            if lost.insert(next) {
                for_this.insert(next);
                open.extend(&waiting[next]);
            }
        }
        for step in &for_this {
            skipped(&plan.steps[*step], id);
        }
        let failure = StepFailure {
            step: plan.steps[id].clone(),
            error,
            skipped: for_this.into_iter().collect(),
        };
        failures.insert(id, failure);
    }
    failures.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Operation;
    use std::cell::{Cell, RefCell};

    /// A plan of `steps`, each with the steps it waits for.
    fn plan(steps: &[&[usize]]) -> Plan {
        let mut plan = Plan::new("test");
        for (id, after) in steps.iter().enumerate() {
            let operation = Operation::RemoveVolume { name: id.to_string() };
            plan.add(operation, Vec::new(), after.iter().copied());
        }
        plan
    }

    fn failure(step: &Step) -> StepError {
        StepError::NoHealthCheck {
            container: step.id.to_string(),
        }
    }

    #[tokio::test]
    async fn a_step_begins_when_those_before_it_are_done() {
        let plan = plan(&[&[], &[0], &[0], &[1, 2], &[]]);
        let done = RefCell::new(Vec::new());
        let failures = run(
            &plan,
            None,
            async |step: &Step| {
                for before in &step.after {
                    assert!(done.borrow().contains(before), "{} before {before}", step.id);
                }
                tokio::task::yield_now().await;
                done.borrow_mut().push(step.id);
                Ok(())
            },
            |_, _| panic!("nothing is skipped"),
        )
        .await;
        assert!(failures.is_empty());
        assert_eq!(done.borrow().len(), 5);
    }

    #[tokio::test]
    async fn a_failure_stops_what_waits_for_it_and_nothing_else() {
        let plan = plan(&[&[], &[0], &[1], &[], &[3], &[2, 4]]);
        let done = RefCell::new(BTreeSet::new());
        let skipped = RefCell::new(Vec::new());
        let failures = run(
            &plan,
            None,
            async |step: &Step| {
                if step.id == 0 || step.id == 4 {
                    return Err(failure(step));
                }
                done.borrow_mut().insert(step.id);
                Ok(())
            },
            |step, failed| skipped.borrow_mut().push((step.id, failed)),
        )
        .await;
        assert_eq!(*done.borrow(), BTreeSet::from([3]));
        assert_eq!(
            failures.iter().map(|failure| failure.step.id).collect::<Vec<_>>(),
            [0, 4]
        );
        let told: BTreeSet<usize> = skipped.borrow().iter().map(|(step, _)| *step).collect();
        assert_eq!(told, BTreeSet::from([1, 2, 5]));
        assert_eq!(skipped.borrow().len(), 3, "each is told once");
    }

    #[tokio::test]
    async fn no_more_steps_at_a_time_than_allowed() {
        let plan = plan(&[&[], &[], &[], &[], &[]]);
        let (now, most) = (Cell::new(0), Cell::new(0));
        run(
            &plan,
            Some(2),
            async |_: &Step| {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                Ok(())
            },
            |_, _| {},
        )
        .await;
        assert_eq!(most.get(), 2);
    }
}
