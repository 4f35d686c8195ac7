//! Gives memory back to the operating system.
//!
//! mimalloc keeps what was freed for a second, in case it is wanted again, and returns it when a
//! thread next asks for a whole page. A server that is idle after a flood asks for none, and would
//! keep all of it.

use std::hint::black_box;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(5);
/// Too long for any page that a thread has at hand. It is never touched, so it costs no memory.
const BLOCK_BYTES: usize = 1 << 20;

/// Makes the allocator look, again and again, for what it can return.
pub(crate) async fn give_back() {
    loop {
        tokio::time::sleep(PERIOD).await;
        drop(black_box(Vec::<u8>::with_capacity(BLOCK_BYTES)));
    }
}
