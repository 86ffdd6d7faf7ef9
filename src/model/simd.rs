//! Loops compiled for the instruction sets of the machine at hand, chosen at run time.

use pulp::{Arch, Simd, WithSimd};

/// Runs `operation` as compiled for the widest instruction set that this machine has.
///
/// Only what is inlined into it is compiled so: `operation` itself has to be a closure marked `#[inline(always)]`, as has to be
/// every function with loops that it calls. It is taken as `FnMut` because a closure that is called as `FnOnce` goes through a
/// function that the compiler makes, and which it does not inline.
#[inline]
pub(crate) fn vectorised<R>(operation: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Operation(operation))
}

struct Operation<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Operation<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}
