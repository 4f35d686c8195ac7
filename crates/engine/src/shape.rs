//! The check that every loader makes of its trees: that walking down one ends.

use crate::document::Fault;

/// Refuses nodes that are reached twice from the root, node 0 of `count`, which excludes cycles. Nodes
/// that are not reached at all are what pruning leaves behind. `children` gives none for a leaf.
pub(crate) fn check(count: usize, children: impl Fn(u32) -> Option<[u32; 2]>) -> Result<(), Fault> {
    let mut reached = vec![false; count];
    reached[0] = true;
    let mut open = vec![0u32];
    while let Some(node) = open.pop() {
        for child in children(node).into_iter().flatten() {
            if std::mem::replace(&mut reached[child as usize], true) {
                return Err(Fault(format!(
                    "node {node}: child {child} is reached twice"
                )));
            }
            open.push(child);
        }
    }
    Ok(())
}
