//! The tile unit's instructions, which the standard library has no stable names for yet.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::MaybeUninit;

use super::pack::{BLOCK, Line};

/// One block of the result.
#[repr(C, align(64))]
pub(super) struct Block([[f32; BLOCK]; BLOCK]);

impl Default for Block {
    fn default() -> Self {
        Self([[0.0; BLOCK]; BLOCK])
    }
}

/// Whether the processor has tiles and their bf16 product: leaf 7 of its description, bits 24 and 22 of edx.
pub(super) fn supported() -> bool {
    let bits = __cpuid_count(7, 0).edx;
    bits & (1 << 24) != 0 && bits & (1 << 22) != 0
}

/// Asks Linux for the tiles' eight kilobytes of state in every thread: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
pub(super) fn permitted() -> bool {
    let result: isize;
    // SAFETY: the call (number 158) takes two numbers and touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158isize => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Makes every tile 16 rows of 64 bytes.
///
/// # Safety
/// The unit is [`supported`] and [`permitted`].
pub(super) unsafe fn configure() {
    #[repr(align(64))]
    struct Palette([u8; 64]);
    static PALETTE: Palette = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        Palette(bytes)
    };
    // SAFETY: the instruction reads the 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &PALETTE.0, options(nostack, readonly)) }
}

/// Gives the tiles back, so that the system need not save them when it switches threads.
///
/// # Safety
/// The unit is [`supported`] and [`permitted`].
pub(super) unsafe fn release() {
    // SAFETY: the tiles hold nothing that is still needed.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// The product of two panels over `steps` depths: in each the six products of parts, the small ones first.
///
/// Tiles 0 to 3 hold the block, 4 and 5 two tiles of `a`, 6 and 7 two tiles of `b`.
///
/// # Safety
/// [`configure`] was called on this thread, `steps` is at least 1, and both panels have that many depths.
pub(super) unsafe fn multiply(a: *const Line, b: *const Line, steps: usize, out: &mut Block) {
    // Adds the products of the loaded tiles to the block, in an order that lets each start before the next loads.
    macro_rules! product {
        () => {
            "tdpbf16ps tmm0, tmm4, tmm6
             tdpbf16ps tmm1, tmm4, tmm7
             tdpbf16ps tmm2, tmm5, tmm6
             tdpbf16ps tmm3, tmm5, tmm7"
        };
    }
    macro_rules! left {
        ($part:literal) => {
            concat!(
                "tileloadd tmm4, [{a} + {row} + ",
                $part,
                "*2048]\ntileloadd tmm5, [{a} + {row} + 1024 + ",
                $part,
                "*2048]"
            )
        };
    }
    macro_rules! right {
        ($part:literal) => {
            concat!(
                "tileloadd tmm6, [{b} + {row} + ",
                $part,
                "*2048]\ntileloadd tmm7, [{b} + {row} + 1024 + ",
                $part,
                "*2048]"
            )
        };
    }
    // SAFETY: every load lies inside one depth (6144 bytes) of the panels, the stores inside the block.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            left!(2), right!(0), product!(),
            left!(1), product!(),
            right!(1), product!(),
            left!(0), product!(),
            right!(2), product!(),
            right!(0), product!(),
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {out_row}], tmm0",
            "tilestored [{out} + {out_row} + 64], tmm1",
            "tilestored [{out} + {out_row} + 2048], tmm2",
            "tilestored [{out} + {out_row} + 2112], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            row = in(reg) 64usize,
            out = in(reg) out.0.as_mut_ptr(),
            out_row = in(reg) 128usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Where a block of a product goes: `out = keep·out + scale·block + bias`.
#[derive(Clone, Copy)]
pub(super) struct Result<'a> {
    /// The block's first element.
    pub corner: *mut f32,
    /// How far rows lie apart.
    pub stride: usize,
    pub keep: f32,
    pub scale: f32,
    /// One for each column.
    pub bias: Option<&'a [f32]>,
}

impl Result<'_> {
    /// The same from another element on.
    ///
    /// # Safety
    /// The result has that row and column.
    pub unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's promise.
        let corner = unsafe { self.corner.add(row * self.stride + column) };
        Self { corner, bias: self.bias.map(|bias| &bias[column..]), ..self }
    }
}

/// Adds the block's first rows and columns to the result.
///
/// # Safety
/// The result has room for them, nobody else uses it and it holds numbers unless `keep` is 0, and the processor has AVX-512.
#[target_feature(enable = "avx512f,fma")]
pub(super) unsafe fn add(block: &Block, (rows, columns): (usize, usize), result: Result<'_>) {
    let mut bias = [0f32; BLOCK];
    if let Some(given) = result.bias {
        bias[..columns].copy_from_slice(&given[..columns]);
    }
    for (r, row) in block.0.iter().take(rows).enumerate() {
        // SAFETY: the caller's promise.
        let out =
            unsafe { std::slice::from_raw_parts_mut(result.corner.add(r * result.stride).cast(), columns) };
        match <&mut [MaybeUninit<f32>; BLOCK]>::try_from(&mut *out) {
            // SAFETY: the caller's promise.
            Ok(whole) => unsafe { add_row(whole, row, &bias, result) },
            // SAFETY: the caller's promise.
            Err(_) => unsafe { add_row(out, &row[..columns], &bias, result) },
        }
    }
}

/// A result that is overwritten may hold anything before, also what is not a number or was never written.
///
/// # Safety
/// `out` is initialised unless `keep` is 0.
#[inline(always)]
unsafe fn add_row<Out: AsMut<[MaybeUninit<f32>]> + ?Sized, Row: AsRef<[f32]> + ?Sized>(
    out: &mut Out,
    row: &Row,
    bias: &[f32; BLOCK],
    Result { keep, scale, .. }: Result<'_>,
) {
    let pairs = out.as_mut().iter_mut().zip(row.as_ref()).zip(bias);
    if keep == 0.0 {
        pairs.for_each(|((out, x), bias)| _ = out.write(scale * x + bias));
    } else {
        // SAFETY: the caller's promise.
        pairs.for_each(|((out, x), bias)| {
            _ = out.write(keep * unsafe { out.assume_init() } + (scale * x + bias));
        });
    }
}
