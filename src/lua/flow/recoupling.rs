//! The recoupling ratio.

use crate::flow::recoupling;
use crate::lua::catalogue::Entry;
use crate::lua::register::Registry;
use crate::lua::tensor::TensorArg;

/// Registers `lft.flow.recoupling`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    let costs = &[
        ("optimal", "number", "Σ‖x0_i − x1_σ(i)‖² under the optimal assignment σ"),
        ("identity", "number", "Σ‖x0_i − x1_i‖²"),
    ];
    registry.record("RecouplingCosts", "Transport costs, summed over all sequences.", costs);
    registry.function(
        Entry {
            name: "lft.flow.recoupling",
            about: "The recoupling ratio: the share of tokens that exact optimal transport would pair with another \
                    token's latent, which is how often straight paths from x0 to x1 cross.",
            params: &[("x0", "Tensor", "latents (n, D) or (B, n, D) in front of the block"), ("x1", "Tensor", "latents behind it")],
            returns: &[
                ("number", "0 when no pairing is cheaper than the given one, mean over sequences"),
                ("integer[]", "position within its sequence, from 1, of the x1 that each x0 is paired with"),
                ("RecouplingCosts", "what the pairings cost"),
            ],
            example: "local x = lft.tensor({{0, 0}, {5, 5}, {9, 9}})\nlocal ratio, assignment = lft.flow.recoupling(x, x:index_select(1, {2, 1, 3}))\nassert(math.abs(ratio - 2 / 3) < 1e-6 and assignment[1] == 2)",
        },
        |lua, (x0, x1): (TensorArg, TensorArg)| {
            let found = recoupling(&x0.0, &x1.0)?;
            let assignment: Vec<usize> = found.assignment.iter().map(|index| index + 1).collect();
            let costs = lua.create_table()?;
            costs.set("optimal", found.optimal_cost)?;
            costs.set("identity", found.identity_cost)?;
            Ok((found.ratio, assignment, costs))
        },
    )
}
