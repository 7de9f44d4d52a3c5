//! The columns of a row group, written on several threads at once. In memory only.
//!
//! Columns know nothing of one another, so the bytes are the same whatever the number of threads and whoever comes
//! first. The caller works too, and waits for nothing but what another thread has begun: where the others get no
//! processor, it does all of it. A column's panic is its error. The threads end with their team.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use parquet::errors::ParquetError;

/// Something to do. It tells by itself what came of it.
type Work = Box<dyn FnOnce() + Send>;

/// Threads that share work with whoever has it.
pub(super) struct Team {
    queue: Arc<Queue>,
    others: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    is_more: Condvar,
}

#[derive(Default)]
struct State {
    /// At most what one call of [`Team::each`] brings: one work a way of each column.
    works: VecDeque<Work>,
    is_over: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next work, waiting for it; none when it is over.
    fn wait(&self) -> Option<Work> {
        let idle = |state: &mut State| state.works.is_empty() && !state.is_over;
        let state = self.is_more.wait_while(self.state(), idle);
        state.unwrap_or_else(PoisonError::into_inner).works.pop_front()
    }
}

impl Team {
    /// The caller alone.
    pub(super) fn alone() -> Self {
        Self { queue: Arc::default(), others: Vec::new() }
    }

    /// The caller and as many others as make so many threads.
    pub(super) fn of(threads: usize) -> Result<Self, ParquetError> {
        let mut team = Self::alone();
        for _ in 1..threads {
            let queue = Arc::clone(&team.queue);
            let work = move || std::iter::from_fn(|| queue.wait()).for_each(|work| work());
            let thread = Builder::new().name("tjern-columns".to_owned()).spawn(work);
            team.others.push(thread.map_err(|error| ParquetError::External(Box::new(error)))?);
        }
        Ok(team)
    }

    /// Does `work` on each item and returns what came of it in the order of the items; of several errors the first in
    /// that order. Whoever has time takes the next item.
    pub(super) fn each<Item: Send + 'static, Made: Send + 'static>(
        &self,
        items: Vec<Item>,
        work: impl Fn(Item) -> Result<Made, ParquetError> + Send + Sync + 'static,
    ) -> Result<Vec<Made>, ParquetError> {
        let work = move |item| {
            catch_unwind(AssertUnwindSafe(|| work(item))).unwrap_or_else(|cause| Err(panicked(cause.as_ref())))
        };
        if self.others.is_empty() {
            return items.into_iter().map(work).collect();
        }
        let (work, (sender, made)) = (Arc::new(work), channel());
        let works = items.into_iter().enumerate().map(|(index, item)| -> Work {
            let (work, sender) = (Arc::clone(&work), sender.clone());
            // Whoever wants it waits for it below.
            Box::new(move || drop(sender.send((index, work(item)))))
        });
        self.queue.state().works.extend(works);
        drop(sender);
        self.queue.is_more.notify_all();
        let next = || self.queue.state().works.pop_front();
        std::iter::from_fn(next).for_each(|work| work());
        let mut made: Vec<_> = made.into_iter().collect();
        made.sort_by_key(|(index, _)| *index);
        made.into_iter().map(|(_, made)| made).collect()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.queue.state().is_over = true;
        self.queue.is_more.notify_all();
        for other in self.others.drain(..) {
            // What panics there is caught, and told to whoever had the work.
            let _ = other.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Team").field("others", &self.others.len()).finish_non_exhaustive()
    }
}

fn panicked(cause: &(dyn Any + Send)) -> ParquetError {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    ParquetError::General(format!("the writer of a column panicked: {}", text.unwrap_or("it did not say why")))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// Whoever comes first: what is made stands where its column does, or a file's columns were exchanged.
    #[test]
    fn what_is_made_keeps_the_order_of_the_columns() {
        let columns = 15;
        for threads in [1, 2, 3, 40] {
            let team = Team::of(threads).expect("threads");
            for _ in 0..10 {
                let made = team.each((0..columns).collect(), |column| {
                    (0..column % 3).for_each(|_| thread::yield_now());
                    Ok(column)
                });
                assert_eq!(made.expect("no error"), (0..columns).collect::<Vec<_>>());
            }
        }
    }

    /// With one thread the two would wait for each other for ever.
    #[test]
    fn two_threads_work_at_the_same_time() {
        let both = Barrier::new(2);
        let wait = move |()| {
            both.wait();
            Ok(())
        };
        Team::of(2).expect("threads").each(vec![(), ()], wait).expect("no error");
    }

    /// A run that ends by a column's panic must say so, and not wait for it nor write a file without it.
    #[test]
    fn a_panic_and_an_error_in_any_column_are_the_errors_of_all() {
        for threads in [1, 2, 5] {
            let team = Team::of(threads).expect("threads");
            for bad in 0..5 {
                let failing = move |column| {
                    if column == bad { Err(ParquetError::General(format!("column {column}"))) } else { Ok(()) }
                };
                let error = team.each((0..5).collect(), failing).expect_err("a column failed");
                assert!(error.to_string().contains(&format!("column {bad}")), "{error}");
                let panicking = move |column| {
                    assert!(column != bad, "column {column} broke");
                    Ok(())
                };
                let error = team.each((0..5).collect(), panicking).expect_err("a column panicked");
                assert!(error.to_string().contains(&format!("panicked: column {bad} broke")), "{error}");
            }
        }
    }
}
