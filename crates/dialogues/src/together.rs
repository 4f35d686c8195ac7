//! Questions to the database that come at the same time are answered together: one statement for many
//! costs little more than for one.

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Answers questions of one kind together.
pub(crate) trait Together<Q: Send + 'static>: Send + Sync + 'static {
    /// What comes of a question.
    type Answer: Send + 'static;
    /// The most that is answered at once, unless it is one question.
    const WEIGHT_MAX: usize;
    /// Groups that are answered at the same time.
    const GROUPS_MAX: usize;

    /// Where questions wait.
    fn queue(&self) -> &Queue<Q, Self::Answer>;

    /// What a question counts towards [`Self::WEIGHT_MAX`].
    fn weight(question: &Q) -> usize;

    /// Answers in the order of the questions. `None` where they have to be asked one by one.
    fn answer(&self, questions: Vec<Q>) -> impl Future<Output = Option<Vec<Self::Answer>>> + Send;
}

/// Questions that wait.
pub(crate) struct Queue<Q, A>(Mutex<Waiting<Q, A>>);

struct Waiting<Q, A> {
    questions: VecDeque<(Q, oneshot::Sender<A>)>,
    /// Tasks that answer them.
    servers: usize,
}

impl<Q, A> Default for Queue<Q, A> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            questions: VecDeque::new(),
            servers: 0,
        }))
    }
}

/// Asks together with others; `None` where it has to be asked alone. While one group is answered the next
/// one gathers.
pub(crate) async fn ask<Q, T>(of: &Arc<T>, question: Q) -> Option<T::Answer>
where
    Q: Send + 'static,
    T: Together<Q>,
{
    let (tell, told) = oneshot::channel();
    let is_needed = {
        let mut waiting = of.queue().0.lock();
        waiting.questions.push_back((question, tell));
        let is_needed = waiting.servers < T::GROUPS_MAX;
        waiting.servers += usize::from(is_needed);
        is_needed
    };
    if is_needed {
        let of = Arc::clone(of);
        let serving = Serving {
            of,
            is_over: false,
            asked: PhantomData,
        };
        tokio::spawn(serving.serve());
    }
    told.await.ok()
}

/// The task that answers. If it ends early, nobody who waits is answered.
struct Serving<Q: Send + 'static, T: Together<Q>> {
    of: Arc<T>,
    is_over: bool,
    asked: PhantomData<fn(Q)>,
}

/// Questions, and who waits for each answer.
type Group<Q, A> = (Vec<Q>, Vec<oneshot::Sender<A>>);

/// Those that are answered next; if there are none, whoever asks next begins a task.
fn next<Q, T>(of: &T) -> Group<Q, T::Answer>
where
    Q: Send + 'static,
    T: Together<Q>,
{
    let mut waiting = of.queue().0.lock();
    let mut weight = 0;
    let taken = waiting.questions.iter().take_while(|(question, _)| {
        let is_first = weight == 0;
        weight += T::weight(question).max(1);
        is_first || weight <= T::WEIGHT_MAX
    });
    let count = taken.count();
    if count == 0 {
        waiting.servers -= 1;
    }
    waiting.questions.drain(..count).unzip()
}

impl<Q: Send + 'static, T: Together<Q>> Serving<Q, T> {
    async fn serve(mut self) {
        loop {
            let (questions, tell) = next::<Q, T>(&self.of);
            if questions.is_empty() {
                self.is_over = true;
                return;
            }
            let answers = self.of.answer(questions).await;
            for (tell, answer) in tell.into_iter().zip(answers.into_iter().flatten()) {
                let _ = tell.send(answer);
            }
        }
    }
}

impl<Q: Send + 'static, T: Together<Q>> Drop for Serving<Q, T> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.of.queue().0.lock();
            waiting.servers -= 1;
            waiting.questions.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Doubles {
        queue: Queue<usize, usize>,
        rounds: AtomicUsize,
    }

    impl Together<usize> for Doubles {
        type Answer = usize;
        const WEIGHT_MAX: usize = 10;
        const GROUPS_MAX: usize = 2;

        fn queue(&self) -> &Queue<usize, usize> {
            &self.queue
        }

        fn weight(question: &usize) -> usize {
            *question
        }

        async fn answer(&self, questions: Vec<usize>) -> Option<Vec<usize>> {
            self.rounds.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            assert!(!questions.contains(&13), "bad luck");
            let weight: usize = questions.iter().sum();
            assert!(questions.len() == 1 || weight <= 10, "{questions:?}");
            (!questions.contains(&7)).then(|| questions.iter().map(|one| one * 2).collect())
        }
    }

    #[tokio::test]
    async fn everybody_gets_their_answer_and_groups_are_bounded() {
        let all = Arc::new(Doubles::default());
        let asked = (0..500).map(|one| ask(&all, one % 7));
        let answers = futures_util::future::join_all(asked).await;
        for (one, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Some(one % 7 * 2));
        }
        assert!(all.rounds.load(Ordering::Relaxed) < 300);
        // Heavier than a group may be.
        assert_eq!(ask(&all, 20).await, Some(40));
    }

    #[tokio::test]
    async fn a_group_that_fails_is_told_and_the_next_is_answered() {
        let all = Arc::new(Doubles::default());
        let (wrong, beside) = tokio::join!(ask(&all, 7), ask(&all, 1));
        assert_eq!((wrong, beside), (None, None));
        assert_eq!(ask(&all, 1).await, Some(2));
        assert_eq!(ask(&all, 13).await, None);
        assert_eq!(ask(&all, 1).await, Some(2));
    }
}
