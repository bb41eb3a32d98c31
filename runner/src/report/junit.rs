//! JUnit XML: a test case per step, for continuous integration.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::plain;
use crate::{
    event::Event,
    run::{Body, Run, State},
};

/// A run as JUnit XML.
pub fn junit(run: &Run) -> String {
    let (id, title) = match run.began.as_ref().map(|r| &r.event) {
        Some(Event::RunBegan { run, title, .. }) => (run.clone(), title.clone()),
        _ => (String::new(), String::new()),
    };
    let mut suite = TestSuite::new(plain(&title));
    for (at, unit) in run.units.iter().enumerate().filter(|(_, unit)| unit.body == Body::Leaf) {
        let error = plain(unit.error.as_deref().unwrap_or("")).replace('\n', " ");
        let status = match unit.state {
            State::Succeeded | State::Recovered => TestCaseStatus::success(),
            State::Failed => with_message(TestCaseStatus::non_success(NonSuccessKind::Failure), &error),
            State::Unknown | State::Cancelled => with_message(TestCaseStatus::non_success(NonSuccessKind::Error), &error),
            State::Skipped | State::NotReached | State::Pending | State::Waiting | State::Running => {
                let mut skipped = TestCaseStatus::skipped();
                skipped.set_message(error);
                skipped
            }
        };
        let mut case = TestCase::new(unit.path.to_string(), status);
        case.set_classname(run.text(at).head.uses.get_ref().as_str());
        if let (Some((_, from)), Some((_, to))) = (unit.began, unit.ended) {
            case.set_time(std::time::Duration::from_secs_f64((to - from).max(0.0)));
        }
        suite.add_test_case(case);
    }
    let mut report = Report::new(format!("runsheet {id}"));
    report.add_test_suite(suite);
    report.to_string().unwrap_or_default()
}

fn with_message(mut status: TestCaseStatus, message: &str) -> TestCaseStatus {
    status.set_message(message);
    status
}
