//! Tests, each registered where it stands, by the sentence that it shows to hold.

use crate::support::cluster::data;
use libtest_mimic::Trial;
use std::sync::Mutex;
use std::time::Instant;

/// A part of the tests, by the name that `BULK_TEST_PART` has.
pub type Part = &'static str;
/// Those that meet the server's catalogs, its storage, its executor and its processes, for versions of PostgreSQL of which only these are run. The rest
/// (HTTP layers, documents, object stores, what the text of a request may be) is the same on all.
pub const SERVER: Part = "server";
/// Those that write rows, for other ways of writing them.
pub const WRITING: Part = "writing";

/// What a test needs that may not be there: without it the test is ignored, and listed as such.
#[derive(Clone, Copy)]
pub enum Needs {
    Nothing,
    /// The real data beside the checkout.
    Data,
    /// The original texts of the contract beside the checkout.
    Texts,
}

impl Needs {
    fn are_there(self) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Data => data().is_dir(),
            Needs::Texts => data().join("../spec/source").is_dir(),
        }
    }
}

/// A test.
pub struct Test {
    pub name: &'static str,
    /// Where it stands.
    pub module: &'static str,
    pub run: fn(),
    pub needs: Needs,
}
inventory::collect!(Test);

/// The parts that the tests of a module belong to.
pub struct Parts {
    pub module: &'static str,
    pub parts: &'static [Part],
}
inventory::collect!(Parts);

/// Registers the function below it as a test: `test!("a sentence", function)`, and what it needs.
macro_rules! test {
    ($name:literal, $run:ident) => {
        test!($name, $run, Nothing);
    };
    ($name:literal, $run:ident, $needs:ident) => {
        inventory::submit! {
            crate::support::trial::Test { name: $name, module: module_path!(), run: $run, needs: crate::support::trial::Needs::$needs }
        }
    };
}
pub(crate) use test;

/// Says which parts the tests of this module belong to.
macro_rules! parts {
    ($($part:ident),+) => {
        inventory::submit! { crate::support::trial::Parts { module: module_path!(), parts: &[$($part),+] } }
    };
}
pub(crate) use parts;

/// How long each test took that has ended, in seconds.
static TOOK: Mutex<Vec<(f64, &'static str)>> = Mutex::new(Vec::new());

/// The tests of a part, or all, in the order of their modules and names.
pub fn trials(part: &str) -> Vec<Trial> {
    let belongs = |test: &Test| inventory::iter::<Parts>().any(|parts| parts.module == test.module && parts.parts.contains(&part));
    let mut tests: Vec<&Test> = inventory::iter::<Test>().filter(|test| part == "all" || belongs(test)).collect();
    tests.sort_by_key(|test| (test.module, test.name));
    let trial = |test: &Test| {
        let (name, run) = (test.name, test.run);
        let timed = move || {
            let began = Instant::now();
            run();
            TOOK.lock().unwrap().push((began.elapsed().as_secs_f64(), name));
            Ok(())
        };
        Trial::test(name, timed).with_ignored_flag(!test.needs.are_there())
    };
    tests.into_iter().map(trial).collect()
}

/// The slowest of the tests that have ended, with their seconds.
pub fn slowest(count: usize) -> Vec<(f64, &'static str)> {
    let mut took = std::mem::take(&mut *TOOK.lock().unwrap());
    took.sort_by(|one, other| other.0.total_cmp(&one.0));
    took.truncate(count);
    took
}
