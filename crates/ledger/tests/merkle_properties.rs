//! Checks that every honest proof verifies, and that no changed proof verifies. Checks that a tree
//! does not depend on how often its `TileWriter` was resumed while its leaves were appended. Tests
//! every proof of small trees, and random proofs of trees of up to 2⁶³ leaves.

use ledger::merkle::{
    Frontier, Hash, TILE_WIDTH, TileId, TileWriter, Tiles, TreeError, consistency_proof,
    inclusion_proof, node_hash, root_at, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;

type Kept = BTreeMap<TileId, Vec<Hash>>;

fn leaf(i: u64) -> Hash {
    ledger::leaf_hash(&Sha256::digest(i.to_be_bytes()).into())
}

fn tree(size: u64) -> Kept {
    let mut writer = TileWriter::new();
    (0..size).for_each(|i| writer.push(leaf(i)));
    writer.take_changed().into_iter().collect()
}

/// A tree in which all leaves are equal except one, the odd leaf. Therefore even a huge tree needs
/// no stored nodes.
struct Huge {
    size: u64,
    odd: u64,
    /// For each height, `even_nodes` contains the root of a perfect tree without the odd leaf. For
    /// each height, `odd_nodes` contains the root of a perfect tree with the odd leaf.
    even_nodes: Vec<Hash>,
    odd_nodes: Vec<Hash>,
}

impl Huge {
    fn new(size: u64, odd: u64) -> Self {
        let (mut even_nodes, mut odd_nodes) = (vec![leaf(0)], vec![leaf(1)]);
        for height in 0..64 {
            let (even, with_odd) = (even_nodes[height], odd_nodes[height]);
            even_nodes.push(node_hash(&even, &even));
            odd_nodes.push(if odd >> height & 1 == 1 {
                node_hash(&even, &with_odd)
            } else {
                node_hash(&with_odd, &even)
            });
        }
        Huge { size, odd, even_nodes, odd_nodes }
    }

    fn leaf(&self, index: u64) -> Hash {
        leaf(u64::from(index == self.odd))
    }
}

impl Tiles for Huge {
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, Infallible> {
        let height = 8 * usize::from(id.level);
        let first = id.index * TILE_WIDTH as u64;
        let node = |i: u64| {
            if self.odd >> height == i { self.odd_nodes[height] } else { self.even_nodes[height] }
        };
        Ok((first..first + id.width_at(self.size) as u64).map(node).collect::<Vec<_>>().into())
    }
}

/// Returns copies of the proof, each with a different small change.
fn changed(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for i in 0..proof.len() {
        for (byte, bit) in [(0, 0x80), (15, 0x10), (31, 1)] {
            let mut changed = proof.to_vec();
            changed[i][byte] ^= bit;
            all.push(changed);
        }
        let mut shorter = proof.to_vec();
        shorter.remove(i);
        all.push(shorter);
        if i > 0 && proof[i] != proof[i - 1] {
            let mut swapped = proof.to_vec();
            swapped.swap(i - 1, i);
            all.push(swapped);
        }
    }
    all.push([proof, &[[0; 32]]].concat());
    all.push([&[[0; 32]], proof].concat());
    all
}

/// Checks that an inclusion proof verifies, and that no changed copy of the proof verifies.
fn check_inclusion(
    tiles: &impl Tiles<Error = Infallible>,
    leaf: &Hash,
    index: u64,
    size: u64,
    others: &[u64],
) {
    let (root, proof) =
        (root_at(tiles, size).unwrap(), inclusion_proof(tiles, index, size).unwrap());
    assert_eq!(
        verify_inclusion(leaf, index, size, &proof, &root),
        Ok(()),
        "leaf {index} of {size}"
    );
    for changed in changed(&proof) {
        assert!(
            verify_inclusion(leaf, index, size, &changed, &root).is_err(),
            "leaf {index} of {size}"
        );
    }
    for byte in [0, 31] {
        let (mut other_leaf, mut other_root) = (*leaf, root);
        other_leaf[byte] ^= 1;
        other_root[byte] ^= 1;
        assert!(verify_inclusion(&other_leaf, index, size, &proof, &root).is_err());
        assert!(verify_inclusion(leaf, index, size, &proof, &other_root).is_err());
    }
    for &other in others.iter().filter(|&&other| other != index) {
        assert!(
            verify_inclusion(leaf, other, size, &proof, &root).is_err(),
            "leaf {index} passes for leaf {other} of {size}"
        );
    }
}

/// Checks that a consistency proof verifies, and that no changed copy of the proof verifies.
fn check_consistency(tiles: &impl Tiles<Error = Infallible>, from: u64, to: u64) {
    let roots = [root_at(tiles, from).unwrap(), root_at(tiles, to).unwrap()];
    let proof = consistency_proof(tiles, from, to).unwrap();
    assert_eq!(
        verify_consistency(from, &roots[0], to, &roots[1], &proof),
        Ok(()),
        "{from} to {to}"
    );
    for changed in changed(&proof) {
        assert!(
            verify_consistency(from, &roots[0], to, &roots[1], &changed).is_err(),
            "{from} to {to}"
        );
    }
    for byte in [0, 31] {
        let mut others = roots;
        others[0][byte] ^= 1;
        assert!(
            verify_consistency(from, &others[0], to, &roots[1], &proof).is_err(),
            "{from} to {to}"
        );
        others[1][byte] ^= 1;
        // Any tree extends the empty tree, so a proof from the empty tree cannot confirm or refute
        // a root.
        assert!(
            from == 0 || verify_consistency(from, &roots[0], to, &others[1], &proof).is_err(),
            "{from} to {to}"
        );
    }
    assert!(
        from == to || verify_consistency(to, &roots[1], from, &roots[0], &proof).is_err(),
        "{to} back to {from}"
    );
}

#[test]
fn every_proof_of_small_trees() {
    let tiles = tree(50);
    for size in 1..=50 {
        let all: Vec<u64> = (0..=size).collect();
        all[..size as usize]
            .iter()
            .for_each(|&index| check_inclusion(&tiles, &leaf(index), index, size, &all));
        (0..=size).for_each(|from| check_consistency(&tiles, from, size));
    }
}

#[test]
fn around_the_edges_of_tiles() {
    let tiles = tree(66_000);
    let sizes = [
        255, 256, 257, 511, 512, 513, 65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_792,
        66_000,
    ];
    for size in sizes {
        for index in [
            0,
            1,
            254,
            255,
            256,
            257,
            511,
            512,
            65_279,
            65_280,
            65_535,
            65_536,
            size / 2,
            size - 2,
            size - 1,
        ] {
            if index < size {
                check_inclusion(
                    &tiles,
                    &leaf(index),
                    index,
                    size,
                    &[0, index + 1, index ^ 1, index ^ 256, size - 1, size],
                );
            }
        }
        sizes
            .iter()
            .filter(|&&from| from <= size)
            .for_each(|&from| check_consistency(&tiles, from, size));
    }
}

/// Checks the example in C2SP tlog-tiles, "Partial Tiles".
#[test]
fn tiles_of_the_specification() {
    let tiles = tree(70_000);
    let count = |level, full: bool| {
        tiles
            .iter()
            .filter(|(id, tile)| id.level == level && full == (tile.len() == TILE_WIDTH))
            .count()
    };
    assert_eq!(
        [
            count(0, true),
            count(0, false),
            count(1, true),
            count(1, false),
            count(2, true),
            count(2, false)
        ],
        [273, 1, 1, 1, 0, 1]
    );
    let width = |level, index| tiles[&TileId { level, index }].len();
    assert_eq!([width(0, 273), width(1, 1), width(2, 0)], [112, 17, 1]);
    for (&id, tile) in &tiles {
        assert_eq!(id.width_at(70_000), tile.len());
    }
    assert_eq!(TileId { level: 0, index: 274 }.width_at(70_000), 0);
    assert_eq!(TileId { level: 9, index: 0 }.width_at(u64::MAX), 0);
    let tiles = tree(256);
    assert_eq!(tiles.values().map(Vec::len).collect::<Vec<_>>(), [256, 1]);
}

/// Checks that a hash in a tile never changes. Each tile of a tree must be the beginning of the
/// tile at the same position in a larger tree.
#[test]
fn a_larger_tree_has_the_tiles_of_a_smaller_one() {
    let larger = tree(70_000);
    for size in [1, 255, 256, 300, 65_535, 65_536, 65_700] {
        for (id, tile) in tree(size) {
            assert_eq!(tile, larger[&id][..tile.len()]);
        }
        let mut frontier = Frontier::new();
        (0..size).for_each(|i| frontier.push(leaf(i)));
        assert_eq!(Ok(frontier.root()), root_at(&larger, size));
        let again = Frontier::from_parts(size, frontier.hashes().to_vec()).unwrap();
        assert_eq!(again, frontier);
        assert!(Frontier::from_parts(size + 2, frontier.hashes()[1..].to_vec()).is_err());
    }
}

#[test]
fn tiles_that_were_tampered_with_are_not_resumed() {
    let honest = tree(700);
    let root = root_at(&honest, 700).unwrap();
    assert_eq!(TileWriter::resume(700, &root, &honest).unwrap().root(), root);
    for level in [0, 1] {
        let id = TileId { level, index: if level == 0 { 2 } else { 0 } };
        for i in 0..honest[&id].len() {
            let mut tampered = honest.clone();
            tampered.get_mut(&id).unwrap()[i][7] ^= 1;
            assert!(matches!(
                TileWriter::resume(700, &root, &tampered),
                Err(TreeError::Root { .. })
            ));
        }
        let mut shorter = honest.clone();
        shorter.get_mut(&id).unwrap().pop();
        assert!(matches!(TileWriter::resume(700, &root, &shorter), Err(TreeError::Missing { .. })));
    }
    assert!(TileWriter::resume(699, &root, &honest).is_err());
    assert!(TileWriter::resume(701, &root, &honest).is_err());
}

/// Changes, removes, inserts or reorders leaves of a tree whose root is known. Checks that no
/// consistency proof leads from the known root to the root of the changed tree.
#[test]
fn a_fork_has_no_proof() {
    let honest: Vec<Hash> = (0..50).map(leaf).collect();
    let root_of = |leaves: &[Hash]| {
        let mut frontier = Frontier::new();
        leaves.iter().for_each(|leaf| frontier.push(*leaf));
        frontier.root()
    };
    let kept = root_of(&honest[..37]);
    for i in 0..37 {
        let mut changed = honest.clone();
        changed[i][0] ^= 1;
        let mut without = honest.clone();
        without.remove(i);
        let mut with = honest.clone();
        with.insert(i, leaf(1_000));
        let mut swapped = honest.clone();
        swapped.swap(i, i + 1);
        if i == 36 {
            swapped.swap(35, 36);
        }
        for forged in [changed, without, with, swapped] {
            let mut writer = TileWriter::new();
            forged.iter().for_each(|leaf| writer.push(*leaf));
            let tiles: Kept = writer.take_changed().into_iter().collect();
            let proof = consistency_proof(&tiles, 37, writer.size()).unwrap();
            assert!(verify_consistency(37, &kept, writer.size(), &writer.root(), &proof).is_err());
            let honest_proof = consistency_proof(tree(50), 37, 50).unwrap();
            assert!(
                verify_consistency(37, &kept, writer.size(), &writer.root(), &honest_proof)
                    .is_err()
            );
        }
    }
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..5u64, u64::MAX - 3..=u64::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_does_not_matter_in_how_many_steps(steps in prop::collection::vec(0..700u64, 1..12)) {
        let (mut kept, mut size, mut root) = (Kept::new(), 0, ledger::merkle::empty_root());
        for step in steps {
            let mut writer = TileWriter::resume(size, &root, &kept).unwrap();
            prop_assert_eq!(writer.take_changed(), vec![]);
            for i in size..size + step {
                writer.push(leaf(i));
                if i % 300 == 0 {
                    kept.extend(writer.take_changed());
                }
            }
            kept.extend(writer.take_changed());
            (size, root) = (writer.size(), writer.root());
        }
        prop_assert_eq!(&kept, &tree(size));
        prop_assert_eq!(root_at(&kept, size), Ok(root));
    }

    #[test]
    fn proofs_of_huge_trees(
        size in prop_oneof![1..1u64 << 20, 1..=u64::MAX >> 1, (1..63u32).prop_map(|bit| 1 << bit)],
        odd in any::<u64>(), older in any::<u64>(), others in prop::collection::vec(any::<u64>(), 4),
    ) {
        let (odd, older) = (odd % size, older % (size + 1));
        let tree = Huge::new(size, odd);
        let mut others: Vec<u64> = others.iter().map(|other| other % size).collect();
        others.extend([odd ^ 1, odd.wrapping_add(1), odd.wrapping_sub(1), 0, size - 1, size, u64::MAX]);
        check_inclusion(&tree, &tree.leaf(odd), odd, size, &others);
        check_consistency(&tree, older, size);
        // If the older tree contains the odd leaf, the inclusion of the odd leaf in the older tree
        // is also checked.
        if odd < older {
            check_inclusion(&tree, &tree.leaf(odd), odd, older, &[]);
        }
        prop_assert!(inclusion_proof(&tree, odd, size).unwrap().len() <= 63);
    }

    /// Checks that random hashes, leaf indexes and tree sizes are refused, and that no arithmetic
    /// overflows.
    #[test]
    fn nonsense_is_refused(
        a in any_number(), b in any_number(),
        proof in prop::collection::vec(any::<[u8; 32]>(), 0..70), root in any::<Hash>(), other in any::<Hash>(),
    ) {
        prop_assert!(verify_inclusion(&root, a, b, &proof, &other).is_err());
        let trivial = (a == 0 && root == ledger::merkle::empty_root()) || (a == b && root == other);
        prop_assert!(trivial || verify_consistency(a, &root, b, &other, &proof).is_err());
        let none = Kept::new();
        prop_assert!(inclusion_proof(&none, a, b).is_err() || (a == 0 && b == 1));
        prop_assert!(a == 0 || a == b || consistency_proof(&none, a, b).is_err());
        prop_assert!(b == 0 || root_at(&none, b).is_err());
        prop_assert!(TileWriter::resume(b, &root, &none).is_err());
    }
}
