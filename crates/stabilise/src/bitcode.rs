//! The hash of a ThinLTO bitcode file: reading it, and giving a file the hash of another one.
//!
//! The hash is the last record of the module's block (`MODULE_CODE_HASH`, llvm/lib/Bitcode/Writer/BitcodeWriter.cpp). The thin link makes
//! the names of promoted locals from it (`x.llvm.<hash>`), and the keys of its cache; nothing checks it against the contents.
//! The container is LLVM's bitstream (llvm.org/docs/BitCodeFormat.html): bits in little-endian order, blocks that begin
//! with their length in 32-bit words.

/// The five words of a module's hash.
pub type Hash = [u32; 5];

const MAGIC: [u8; 4] = [b'B', b'C', 0xc0, 0xde];
const MODULE_BLOCK: u64 = 8;
const MODULE_CODE_HASH: u64 = 17;

const END_BLOCK: u64 = 0;
const ENTER_SUBBLOCK: u64 = 1;
const DEFINE_ABBREV: u64 = 2;
const UNABBREV_RECORD: u64 = 3;

/// Where the hash of a file's only module is, in bits from its start.
struct Place {
    hash: Hash,
    /// The record, its abbreviation number included.
    record: usize,
    /// Bits of an abbreviation number in the module's block.
    width: u32,
    /// The word that holds the length of the module's block, in bytes from the start.
    length: usize,
    /// The first byte after the module's block.
    end: usize,
}

/// The hash of a bitcode file. `None` when it has none, or more than one module, or is not understood.
pub fn hash(bytes: &[u8]) -> Option<Hash> {
    find(bytes).map(|place| place.hash)
}

/// The same file with another hash. `None` as for [`hash`].
pub fn with_hash(bytes: &[u8], hash: Hash) -> Option<Vec<u8>> {
    let place = find(bytes)?;
    let mut bits = Bits::from(bytes, place.record);
    bits.put(UNABBREV_RECORD, place.width);
    bits.put_vbr6(MODULE_CODE_HASH);
    bits.put_vbr6(hash.len() as u64);
    for word in hash {
        bits.put_vbr6(u64::from(word));
    }
    bits.put(END_BLOCK, place.width);
    let mut result = bits.aligned();
    let words = u32::try_from((result.len() - place.length - 4) / 4).ok()?;
    result.get_mut(place.length..place.length + 4)?.copy_from_slice(&words.to_le_bytes());
    result.extend_from_slice(&bytes[place.end..]);
    Some(result)
}

fn find(bytes: &[u8]) -> Option<Place> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let mut reader = Reader { bytes, at: 32 };
    let mut found = None;
    while reader.at / 8 + 4 <= bytes.len() {
        if reader.fixed(2)? != ENTER_SUBBLOCK {
            return None;
        }
        let block = reader.block()?;
        if block.id == MODULE_BLOCK && found.replace(in_module(bytes, &block)?).is_some() {
            return None;
        }
        reader.at = block.end * 8;
    }
    found
}

/// Looks through the records of a module's block.
fn in_module(bytes: &[u8], block: &Block) -> Option<Place> {
    let mut reader = Reader { bytes, at: block.start * 8 };
    let mut abbreviations: Vec<Vec<Operand>> = Vec::new();
    let mut last = None;
    while reader.at < block.end * 8 {
        let record = reader.at;
        match reader.fixed(block.width)? {
            END_BLOCK => break,
            ENTER_SUBBLOCK => {
                reader.at = reader.block()?.end * 8;
                last = None;
            }
            DEFINE_ABBREV => abbreviations.push(reader.abbreviation()?),
            UNABBREV_RECORD => last = reader.record()?.map(|hash| (record, hash)),
            number => {
                let index = usize::try_from(number - 4).ok()?;
                reader.skip(abbreviations.get(index)?)?;
                last = None;
            }
        }
    }
    let (record, hash) = last?;
    Some(Place { hash, record, width: block.width, length: block.start - 4, end: block.end })
}

/// A block's contents, in bytes from the start of the file.
struct Block {
    id: u64,
    width: u32,
    start: usize,
    end: usize,
}

/// One operand of an abbreviation.
#[derive(Clone, Copy)]
enum Operand {
    Literal,
    Fixed(u32),
    Vbr(u32),
    Array,
    Char6,
    Blob,
}

struct Reader<'d> {
    bytes: &'d [u8],
    /// In bits.
    at: usize,
}

impl Reader<'_> {
    fn fixed(&mut self, width: u32) -> Option<u64> {
        let mut value = 0;
        for n in 0..width {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u64::from(byte >> (self.at % 8) & 1).checked_shl(n)?;
            self.at += 1;
        }
        Some(value)
    }

    fn vbr(&mut self, width: u32) -> Option<u64> {
        let more = 1_u64.checked_shl(width.checked_sub(1)?)?;
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let part = self.fixed(width)?;
            value |= (part & (more - 1)).checked_shl(shift)?;
            if part & more == 0 {
                return Some(value);
            }
            shift += width - 1;
        }
    }

    fn align(&mut self) {
        self.at = self.at.div_ceil(32) * 32;
    }

    /// The head of a block whose abbreviation number was read.
    fn block(&mut self) -> Option<Block> {
        let id = self.vbr(8)?;
        let width = u32::try_from(self.vbr(4)?).ok()?;
        self.align();
        let words = usize::try_from(self.fixed(32)?).ok()?;
        let start = self.at / 8;
        let end = words.checked_mul(4)?.checked_add(start)?;
        (end <= self.bytes.len() && (2..=32).contains(&width)).then_some(Block { id, width, start, end })
    }

    fn abbreviation(&mut self) -> Option<Vec<Operand>> {
        let count = self.vbr(5)?;
        let mut operands = Vec::new();
        for _ in 0..count {
            operands.push(match self.fixed(1)? {
                1 => {
                    self.vbr(8)?;
                    Operand::Literal
                }
                _ => match self.fixed(3)? {
                    1 => Operand::Fixed(u32::try_from(self.vbr(5)?).ok()?),
                    2 => Operand::Vbr(u32::try_from(self.vbr(5)?).ok()?),
                    3 => Operand::Array,
                    4 => Operand::Char6,
                    5 => Operand::Blob,
                    _ => return None,
                },
            });
        }
        Some(operands)
    }

    /// A record without abbreviation; its hash if it is one.
    fn record(&mut self) -> Option<Option<Hash>> {
        let (code, count) = (self.vbr(6)?, self.vbr(6)?);
        let mut hash = Hash::default();
        let is_hash = code == MODULE_CODE_HASH && count == hash.len() as u64;
        for n in 0..count {
            let value = self.vbr(6)?;
            if is_hash {
                hash[n as usize] = u32::try_from(value).ok()?;
            }
        }
        Some(is_hash.then_some(hash))
    }

    /// A record with an abbreviation.
    fn skip(&mut self, operands: &[Operand]) -> Option<()> {
        let mut operands = operands.iter();
        while let Some(&operand) = operands.next() {
            match operand {
                Operand::Array => {
                    let element = *operands.next()?;
                    for _ in 0..self.vbr(6)? {
                        self.scalar(element)?;
                    }
                }
                Operand::Blob => {
                    let size = usize::try_from(self.vbr(6)?).ok()?;
                    self.align();
                    self.at = size.checked_mul(8)?.checked_add(self.at)?;
                    self.align();
                }
                scalar => self.scalar(scalar)?,
            }
        }
        Some(())
    }

    fn scalar(&mut self, operand: Operand) -> Option<()> {
        match operand {
            Operand::Literal => {}
            Operand::Fixed(0) | Operand::Vbr(0) => {}
            Operand::Fixed(width) => _ = self.fixed(width)?,
            Operand::Vbr(width) => _ = self.vbr(width)?,
            Operand::Char6 => _ = self.fixed(6)?,
            Operand::Array | Operand::Blob => return None,
        }
        Some(())
    }
}

/// Bits that are appended to the start of a file.
struct Bits {
    bytes: Vec<u8>,
    /// In bits.
    end: usize,
}

impl Bits {
    fn from(bytes: &[u8], end: usize) -> Bits {
        let mut bytes = bytes[..end.div_ceil(8)].to_vec();
        if let (Some(last), rest @ 1..) = (bytes.last_mut(), end % 8) {
            *last &= (1 << rest) - 1;
        }
        Bits { bytes, end }
    }

    fn put(&mut self, value: u64, width: u32) {
        for n in 0..width {
            if self.end.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << (self.end % 8);
            }
            self.end += 1;
        }
    }

    fn put_vbr6(&mut self, mut value: u64) {
        while value >= 32 {
            self.put(value & 31 | 32, 6);
            value >>= 5;
        }
        self.put(value, 6);
    }

    fn aligned(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().div_ceil(4) * 4, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn run(&self, program: &str, words: &[&str]) {
            let done = Command::new(program).args(words).current_dir(&self.0).output().expect("LLVM's tools");
            assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
        }

        fn bitcode(&self, source: &str, name: &str) -> Vec<u8> {
            std::fs::write(self.0.path().join("a.c"), source).expect("a file");
            self.run("clang-22", &["-O2", "-g", "-flto=thin", "-c", "a.c", "-o", name]);
            std::fs::read(self.0.path().join(name)).expect("bitcode")
        }

        /// The promoted names of a thin link with a unit that imports `entry`.
        fn promoted(&self, name: &str) -> String {
            let importer = "int entry(int); int holder(int n) { return entry(n) * 2; }";
            std::fs::write(self.0.path().join("b.c"), importer).expect("a file");
            self.run("clang-22", &["-O2", "-flto=thin", "-c", "b.c", "-o", "b.o"]);
            self.run("ld.lld-22", &["-r", name, "b.o", "-o", "linked.o"]);
            let listed =
                Command::new("llvm-nm-22").arg("linked.o").current_dir(&self.0).output().expect("nm");
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            text.lines()
                .filter_map(|line| line.split(' ').next_back())
                .filter(|n| n.contains(".llvm."))
                .collect()
        }
    }

    const SOURCE: &str = "extern int sink(int);
        static __attribute__((noinline)) int helper(int n) { return sink(n) + sink(n + 1); }
        int entry(int n) { return helper(n + 1); }
        int other(int n) { return sink(n * 5) + helper(2); }";

    #[test]
    fn a_file_takes_the_hash_of_another_and_with_it_its_promoted_names() {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        let original = folder.bitcode(SOURCE, "original.o");
        let own = hash(&original).expect("a ThinLTO file has a hash");
        assert_eq!(with_hash(&original, own).expect("a file"), original, "its own hash changes nothing");
        for (n, by) in ["6", "7", "8", "1000"].into_iter().enumerate() {
            let name = format!("patched{n}.o");
            let patched = folder.bitcode(&SOURCE.replace("n * 5", &format!("n * {by}")), &name);
            assert_ne!(hash(&patched), Some(own));
            let frozen = with_hash(&patched, own).expect("a file");
            assert_eq!(hash(&frozen), Some(own));
            for extreme in [[0; 5], [u32::MAX; 5], [0, u32::MAX, 31, 32, 1 << 30]] {
                let other = with_hash(&frozen, extreme).expect("a file");
                assert_eq!(hash(&other), Some(extreme));
                assert_eq!(with_hash(&other, own).as_ref(), Some(&frozen), "there and back");
            }
            std::fs::write(folder.0.path().join("frozen.o"), &frozen).expect("a file");
            assert_ne!(folder.promoted(&name), folder.promoted("original.o"));
            assert_eq!(folder.promoted("frozen.o"), folder.promoted("original.o"));
        }
    }

    #[test]
    fn what_is_no_bitcode_or_damaged_has_no_hash() {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        let original = folder.bitcode(SOURCE, "original.o");
        for bytes in [&b""[..], b"BC", b"\x7fELF", &MAGIC, &[MAGIC, [0xff; 4]].concat()] {
            assert_eq!(hash(bytes), None);
        }
        for end in (0..original.len()).step_by(13) {
            hash(&original[..end]);
            let mut damaged = original.clone();
            damaged[end] ^= 0x55;
            if let Some(found) = hash(&damaged) {
                assert!(with_hash(&damaged, found).is_some());
            }
        }
    }
}
