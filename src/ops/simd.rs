//! Kernels compiled several times, for the vector instructions that processors differ in.

/// The widest vector instructions of this processor that kernels are compiled for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) enum Width {
    Avx512,
    Avx2,
    Baseline,
}

/// Asks the processor; the standard library remembers the answer.
#[cfg(target_arch = "x86_64")]
pub(super) fn width() -> Width {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("fma") {
        Width::Avx512
    } else if has!("avx2") && has!("fma") {
        Width::Avx2
    } else {
        Width::Baseline
    }
}

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for the baseline; a call takes the widest
/// that the processor has. Generic parameters stand in brackets: `fn name[F: Fn(f32) -> f32](…)`.
///
/// The body itself stands in a function with the wide instructions enabled, so that closures and inlined calls in
/// it use them too.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$($generic:tt)*] ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($generic)*>($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide<$($generic)*>($($arg: $ty),*) $(-> $ret)? $body

                #[target_feature(enable = "avx2,fma")]
                fn medium<$($generic)*>($($arg: $ty),*) $(-> $ret)? $body

                match $crate::ops::simd::width() {
                    // SAFETY: the processor was just seen to have these instructions.
                    $crate::ops::simd::Width::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::simd::Width::Avx2 => return unsafe { medium($($arg),*) },
                    $crate::ops::simd::Width::Baseline => {}
                }
            }
            $body
        }
    };
}

pub(super) use vectorised;
