//! How instructions of fixed length hold addresses: bit layouts from the Arm architecture's encodings of ADR, ADD
//! (immediate), LDR/STR (unsigned immediate), B, TBZ and MOVZ, named by the AArch64 ELF ABI.

/// The target of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValue {
    /// A whole address.
    Address(u64),
    /// The 4 KiB page of an address.
    Page(u64),
    /// Some bits of an address.
    Bits {
        /// The bits, at their positions.
        bits: u64,
        /// The mask of these bits.
        mask: u64,
    },
}

impl FieldValue {
    /// Returns true if the field could have been written for this address.
    pub(crate) fn is(self, address: u64) -> bool {
        match self {
            FieldValue::Address(a) => a == address,
            FieldValue::Page(page) => page == address & !0xfff,
            FieldValue::Bits { bits, mask } => bits == address & mask,
        }
    }
}

/// How an instruction holds an address.
#[derive(Clone, Copy)]
pub(crate) enum AddressEncoding {
    /// Branch displacement in words: position, width.
    Words(u32, u32),
    /// ADR's split displacement in bytes.
    Adr,
    /// ADRP's split displacement in pages.
    Adrp,
    /// The low 12 bits, scaled by this power of two.
    Low(u32),
    /// 16 bits of the address, starting at this bit.
    Part(u32),
}

impl AddressEncoding {
    /// The field's bits within the instruction.
    pub(crate) fn mask(self) -> u32 {
        match self {
            AddressEncoding::Words(at, width) => ((1 << width) - 1) << at,
            AddressEncoding::Adr | AddressEncoding::Adrp => 0x60ff_ffe0,
            AddressEncoding::Low(_) => 0xfff << 10,
            AddressEncoding::Part(_) => 0xffff << 5,
        }
    }

    /// The target of the field of the instruction at `place`.
    pub(crate) fn value(self, word: u32, place: u64) -> FieldValue {
        let signed = |raw: u32, width: u32| i64::from((raw << (32 - width)) as i32 >> (32 - width));
        let split = signed((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3, 21);
        match self {
            AddressEncoding::Words(at, width) => FieldValue::Address(
                place.wrapping_add_signed(signed(word >> at & ((1 << width) - 1), width) * 4),
            ),
            AddressEncoding::Adr => FieldValue::Address(place.wrapping_add_signed(split)),
            AddressEncoding::Adrp => FieldValue::Page((place & !0xfff).wrapping_add_signed(split << 12)),
            AddressEncoding::Low(scale) => FieldValue::Bits {
                bits: u64::from(word >> 10 & 0xfff) << scale & 0xfff,
                mask: 0xfff & !((1 << scale) - 1),
            },
            AddressEncoding::Part(at) => {
                FieldValue::Bits { bits: u64::from(word >> 5 & 0xffff) << at, mask: 0xffff << at }
            }
        }
    }
}
