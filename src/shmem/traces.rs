//! Keys must not stay where they were copied through: the stack and the vector registers would both be
//! part of a core dump.

use zeroize::zeroize_stack;

/// Clears the vector registers and the stack below.
#[inline(never)]
pub fn wipe() {
    zeroize_stack::<4096>();
    #[cfg(target_arch = "x86_64")]
    x86_64::wipe();
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::{asm, is_x86_feature_detected};

    /// Clears all vector registers that the processor has; memcpy(3) uses the widest.
    pub fn wipe() {
        if is_x86_feature_detected!("avx") {
            // SAFETY: the processor has the instruction; what it overwrites is declared.
            unsafe {
                asm!("vzeroall",
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nomem, nostack, preserves_flags));
            }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions. The compiler keeps nothing in these registers here:
            // whoever calls `wipe`, which is never inlined, saves what it still needs, and built for
            // processors in general it does not use them at all.
            unsafe {
                asm!(
                    "vpxord zmm16, zmm16, zmm16",
                    "vpxord zmm17, zmm17, zmm17",
                    "vpxord zmm18, zmm18, zmm18",
                    "vpxord zmm19, zmm19, zmm19",
                    "vpxord zmm20, zmm20, zmm20",
                    "vpxord zmm21, zmm21, zmm21",
                    "vpxord zmm22, zmm22, zmm22",
                    "vpxord zmm23, zmm23, zmm23",
                    "vpxord zmm24, zmm24, zmm24",
                    "vpxord zmm25, zmm25, zmm25",
                    "vpxord zmm26, zmm26, zmm26",
                    "vpxord zmm27, zmm27, zmm27",
                    "vpxord zmm28, zmm28, zmm28",
                    "vpxord zmm29, zmm29, zmm29",
                    "vpxord zmm30, zmm30, zmm30",
                    "vpxord zmm31, zmm31, zmm31",
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }
}
