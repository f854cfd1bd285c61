//! An operator whose wall clock steps by a day, forward and back.

use e2e::process::Clock;

use super::Window;
use super::shop::Shop;
use crate::field::on_field;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_changes_nothing() {
    on_field("stepped", 1, async |field| {
        let clock = Clock::new();
        let operator = field.operator(&clock.environment()).await;
        let mut shop = Shop::open(field).await;
        for hours in [24, 0, -24, 0] {
            let window = Window::open(field);
            clock.step(hours);
            shop.change().await;
            shop.converged().await;
            window.close(field, "the clock was stepped", shop.objects());
        }
        // It is the same process, still.
        assert!(!operator.has_logged("ended"), "{}", operator.log());
    })
    .await;
}
