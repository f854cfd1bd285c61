//! How long pods that are to go may go on with what they have, and when others go instead.

use std::time::Duration;

/// Pods that are to go may go on with what they have for as long as a call may take, and for this long at least.
pub const LEAST: Duration = Duration::from_secs(30);
/// The longest they may. After that they end as in any shutdown, which cuts no call that the grace period allows.
pub const MOST: Duration = Duration::from_secs(600);
/// Others may be chosen meanwhile, which have the same time; after so many times of it the number falls whoever is at work.
pub const TIMES_MOST: u32 = 2;
/// Pods that are still at work after so long make way for those that are idle by then.
pub const CHOSEN_FIRMLY: Duration = Duration::from_secs(5);

/// How long they may, where a call may take `longest`.
#[must_use]
pub fn patience(longest: Duration) -> Duration {
    longest.clamp(LEAST, MOST)
}

/// Whether pods that were chosen for `chosen`, of a choice that began `begun` ago, have had their time.
#[must_use]
pub fn is_over(longest: Duration, chosen: Duration, begun: Duration) -> bool {
    let patience = patience(longest);
    chosen >= patience || begun >= patience * TIMES_MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_ends_however_often_others_are_chosen() {
        let seconds = Duration::from_secs;
        assert_eq!([1, 90, 9000].map(|longest| patience(seconds(longest))), [LEAST, seconds(90), MOST]);
        assert!(!is_over(seconds(90), seconds(89), seconds(179)));
        assert!(
            is_over(seconds(90), seconds(90), seconds(90)) && is_over(seconds(90), seconds(1), seconds(180))
        );
    }
}
