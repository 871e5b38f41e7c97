//! The queue under many schedules of its threads: shuttle runs them one at a time, finds deadlocks, and repeats a schedule that failed.

use crate::error::Error;
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod sync {
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

// The same code with other locks.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "ordered_queue.rs"]
mod ordered_queue;

use ordered_queue::{Next, Queue};

/// Schedules of each test.
const SCHEDULES: usize = 2000;
/// Looks at a queue whose event is not readable before it counts as forgotten.
const MOST_LOOKS: usize = 10_000;

fn many(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(test, SCHEDULES);
}

fn broken(text: &str) -> Error {
    Error::Internal(text.to_owned())
}

/// Waits for the event as the main thread does, without blocking.
fn wait<I, O>(queue: &Queue<I, O>) {
    for _ in 0..MOST_LOOKS {
        let mut polled = [nix::poll::PollFd::new(queue.event(), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO).unwrap() == 1 {
            return;
        }
        thread::yield_now();
    }
    panic!("the event is not readable, and nothing else will make it so");
}

/// All results up to the end or the first error.
fn all(queue: &Queue<u32, u32>) -> (Vec<u32>, Option<Error>) {
    let mut found = Vec::new();
    loop {
        match queue.next() {
            Ok(Next::Ready(made, size)) => {
                found.push(made);
                queue.release(size);
            }
            Ok(Next::Wait) => wait(queue),
            Ok(Next::End) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

/// A queue of 10 bytes with a thread that feeds blocks of 4 bytes and two that work on them; what is to be made of each block.
fn run(blocks: u32, end: Result<(), Error>, make: fn(&u32) -> Result<u32, Error>) -> (Vec<u32>, Option<Error>) {
    let queue = Arc::new(Queue::<u32, u32>::new(10).unwrap());
    let feeder = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            let fed = (0..blocks).take_while(|&block| queue.put(block, 4)).count();
            queue.end(end);
            fed
        })
    };
    let workers = [(); 2].map(|()| {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.work(make))
    });
    let result = all(&queue);
    queue.stop();
    feeder.join().unwrap();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    result
}

#[test]
fn results_come_in_the_order_of_their_blocks() {
    many(|| {
        let (found, error) = run(7, Ok(()), |block| Ok(block * 10));
        assert_eq!((found, error), (vec![0, 10, 20, 30, 40, 50, 60], None));
    });
}

#[test]
fn an_error_comes_in_the_place_of_its_block_and_ends_all_threads() {
    many(|| {
        let (found, error) = run(7, Ok(()), |block| if *block == 3 { Err(broken("three")) } else { Ok(*block) });
        assert_eq!((found, error), (vec![0, 1, 2], Some(broken("three"))));
    });
}

#[test]
fn a_feeder_that_fails_is_told_behind_what_it_fed() {
    many(|| {
        let (found, error) = run(3, Err(broken("source")), |block| Ok(*block));
        assert_eq!((found, error), (vec![0, 1, 2], Some(broken("source"))));
    });
}

#[test]
fn a_stop_at_any_moment_ends_all_threads() {
    many(|| {
        let queue = Arc::new(Queue::<u32, u32>::new(5).unwrap());
        let feeder = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || while queue.put(1, 4) {})
        };
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.work(|block| Ok(*block)))
        };
        let stopper = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.stop())
        };
        [feeder, worker, stopper].into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_is_under_way_stays_within_the_budget() {
    many(|| {
        let queue = Arc::new(Queue::<u32, u32>::new(10).unwrap());
        let fed = Arc::new(AtomicBool::new(false));
        let feeder = {
            let (queue, fed) = (Arc::clone(&queue), Arc::clone(&fed));
            thread::spawn(move || {
                // A block larger than the budget goes when nothing else is under way.
                assert!(queue.put(1, 4) && queue.put(2, 4) && queue.put(3, 40));
                fed.store(true, Ordering::SeqCst);
                queue.end(Ok(()));
            })
        };
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.work(|block| Ok(*block)))
        };
        let mut sizes = Vec::new();
        while sizes.len() < 2 {
            match queue.next() {
                Ok(Next::Ready(_, size)) => sizes.push(size),
                Ok(Next::Wait) => wait(&queue),
                Ok(Next::End) | Err(_) => panic!("ended"),
            }
        }
        assert!(!fed.load(Ordering::SeqCst), "a third block while two are not released");
        sizes.into_iter().for_each(|size| queue.release(size));
        assert_eq!(all(&queue), (vec![3], None));
        feeder.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn a_panic_is_its_block_s_error() {
    let queue = crate::pipeline::ordered_queue::Queue::<u32, u32>::new(10).unwrap();
    queue.push(1, 4);
    queue.end(Ok(()));
    queue.work(|_| panic!("by intent"));
    assert_eq!(queue.next().err(), Some(broken("a thread panicked")));
}
