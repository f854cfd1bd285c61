//! Several Consumers of one workload.

/// What one Consumer of a workload says of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// It scales, and wants so many.
    Pods(u32),
    /// It consumes, and does not scale: it needs some pod, and does not say how many.
    Some,
    /// It scales, and cannot tell now: no fewer than there are.
    Hold,
}

/// How many pods there should be: the most that anybody wants, and none only when all agree. `None` when nobody scales.
pub fn combine(votes: &[Vote], current: u32) -> Option<u32> {
    let scales = votes.iter().any(|vote| *vote != Vote::Some);
    let least = |vote: &Vote| match vote {
        Vote::Pods(pods) => *pods,
        Vote::Some => 1,
        Vote::Hold => current,
    };
    votes.iter().map(least).max().filter(|_| scales)
}
