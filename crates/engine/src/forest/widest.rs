//! Work on many small numbers, compiled for the widest registers that the processor has.

/// Something to be compiled once for each width. `run` and what it calls have to be `#[inline(always)]`,
/// or else they are compiled for the narrowest alone.
pub(crate) trait Work {
    fn run(self);
}

/// Does it.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "calls of functions for instructions that the processor was just found to have"
)]
pub(crate) fn run_widest(work: impl Work) {
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the processor has the instructions.
        unsafe { run_avx512(work) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        unsafe { run_avx2(work) }
    } else {
        work.run();
    }
}

/// Does it.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn run_widest(work: impl Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw,avx512vl")]
fn run_avx512(work: impl Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(work: impl Work) {
    work.run();
}
