//! What the buffer counts against what it takes. A process of its own, since the system is asked how much
//! memory that has.
#![cfg(target_os = "linux")]

use std::time::Duration;

use auspex_dialogues::{
    CustomerId, CustomerRef, DialogId, Language, Limits, Memory, NewText, Pending as _, PushError,
};
use auspex_kernel::Clock;

const BYTES_MAX: usize = 16 << 20;

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<usize>().ok())
        .expect("a number")
        << 10
}

/// Fills a buffer with dialogues of `texts` texts of `bytes` bytes.
async fn fill(texts: usize, bytes: usize) -> (Memory, usize) {
    let limits = Limits {
        texts_max: 1_000,
        bytes_max: BYTES_MAX,
        expiry: Duration::from_hours(1),
    };
    let memory = Memory::new(limits, Clock::system());
    let text = "x".repeat(bytes);
    let language = Language::parse("es").expect("a language");
    let anybody = CustomerRef::from_bytes(&[1; 16]).expect("16 bytes");
    let mut held = 0;
    for number in 0.. {
        let customer = CustomerId::parse(&format!("customer-{number}")).expect("an id");
        let dialogue = DialogId::parse(&format!("dialogue-{number}")).expect("an id");
        for _ in 0..texts {
            let new = NewText {
                customer: &customer,
                dialogue: &dialogue,
                text: &text,
                language,
                mark: None,
            };
            match memory.push(new, Some(anybody)).await {
                Ok(_) => held += bytes,
                Err(PushError::Full) => return (memory, held),
                Err(error) => panic!("{error}"),
            }
        }
    }
    unreachable!("it fills up")
}

#[tokio::test]
async fn it_takes_at_most_twice_what_it_counts() {
    // Kept to the end, or the next one would take what the one before has given back.
    let mut buffers = Vec::new();
    for (texts, bytes) in [
        (1, 1),
        (1, 200),
        (10, 120),
        (20, 80),
        (1_000, 10),
        (5, 16_000),
    ] {
        let before = resident();
        let (memory, held) = fill(texts, bytes).await;
        let (taken, counted) = (resident() - before, memory.size().await.bytes);
        println!(
            "{texts} texts of {bytes} bytes: {held} bytes of texts, {counted} counted, {taken} taken"
        );
        assert!(counted <= BYTES_MAX && counted > BYTES_MAX - (32 << 10));
        assert!(
            taken > held,
            "{texts} x {bytes}: {taken} for {held} bytes of texts"
        );
        assert!(
            taken < 2 * counted,
            "{texts} x {bytes}: {taken} of {counted}"
        );
        if texts >= 5 && bytes >= 80 {
            assert!(
                taken < 2 * held,
                "{texts} x {bytes}: {taken} for {held} bytes of texts"
            );
        }
        buffers.push(memory);
    }
}
