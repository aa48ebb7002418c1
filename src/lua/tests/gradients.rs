//! Every differentiable operation of scripts against finite differences, in f64.

use std::collections::BTreeSet;

use super::{run, whole};
use crate::lua::catalogue::Kind;

/// Compares the gradients of a random projection of f with central differences.
const CHECK: &str = "
local function values(shape, seed, low, high)
  return lft.rand(shape, {seed = seed, dtype = 'f64'}) * (high - low) + low
end
local function check(name, f, inputs)
  local vars = {}
  for i, x in ipairs(inputs) do vars[i] = lft.var(x) end
  local y = f(table.unpack(vars))
  local w = values(y:shape(), 99, -1, 1)
  local grads = (y * w):sum():backward()
  local h = 1e-5
  for i, x in ipairs(inputs) do
    local g = assert(grads[vars[i]], name .. ': no gradient reaches input ' .. i)
    local flat, found = x:flatten():totable(), g:flatten():totable()
    for j, here in ipairs(flat) do
      local function loss(value)
        flat[j] = value
        local moved = {table.unpack(inputs)}
        moved[i] = lft.tensor(flat, {dtype = 'f64'}):reshape(x:shape())
        flat[j] = here
        return (f(table.unpack(moved)) * w):sum():item()
      end
      local expected = (loss(here + h) - loss(here - h)) / (2 * h)
      assert(math.abs(found[j] - expected) <= 1e-7 * (1 + math.abs(expected)),
        ('%s: input %d, element %d: %.10g, by differences %.10g'):format(name, i, j, found[j], expected))
    end
  end
end
local x, y = values({2, 3}, 1, -2, 2), values({2, 3}, 2, -2, 2)
local p, q = values({2, 3}, 3, 0.5, 2), values({3}, 4, 0.5, 2)
";

/// An operation of the class `Tensor` (or a function of the module, with its full name), the function that is
/// checked, and its inputs: x and y are of either sign, p and q positive, q has one dimension and broadcasts.
const CASES: &[(&str, &str, &str)] = &[
    ("__add", "function(a, b) return a + b + 1 end", "{x, q}"),
    ("__sub", "function(a, b) return (a - b) + (1 - a) end", "{x, q}"),
    ("__mul", "function(a, b) return a * b * 2 end", "{x, q}"),
    ("__div", "function(a, b) return a / b + 1 / b + a / 3 end", "{x, q}"),
    ("__pow", "function(a) return a ^ 2 + a ^ 3 end", "{x}"),
    ("__pow", "function(a, b) return a ^ b + a ^ 0.5 + 2 ^ a end", "{p, q}"),
    ("__pow", "function(a) return a ^ lft.tensor({2, 3, -1}, {dtype = 'f64'}) end", "{x}"),
    ("__unm", "function(a) return -a end", "{x}"),
    ("__index", "function(a) return a[2] * a[{1, {2, 3}}]:sum() + a[{':', -1}]:sum() end", "{x}"),
    ("abs", "function(a) return a:abs() end", "{x}"),
    ("chunk", "function(a) local l, r = table.unpack(a:chunk(2, 2)) return l:sum(2) * r:sum(2) end", "{x}"),
    ("clamp", "function(a) return a:clamp(-1, 1) + a:clamp(nil, 0.5) + a:clamp(0) end", "{x}"),
    ("contiguous", "function(a) return a:transpose():contiguous() end", "{x}"),
    ("cos", "function(a) return a:cos() end", "{x}"),
    ("cumsum", "function(a) return a:cumsum(1) + a:cumsum(2) end", "{x}"),
    (
        "cumsum",
        "function(a) return a:reshape(3, 1, 1):expand(3, 1, 300):contiguous():cumsum(3):mean(3) end",
        "{q}",
    ),
    ("erf", "function(a) return a:erf() end", "{x}"),
    ("exp", "function(a) return a:exp() end", "{x}"),
    ("expand", "function(a) return a:expand(4, 3) end", "{q}"),
    ("flatten", "function(a) return a:flatten() end", "{x}"),
    ("flip", "function(a) return a:flip(2) end", "{x}"),
    ("gather", "function(a) return a:gather(2, lft.tensor({{3, 1}, {2, 2}})) end", "{x}"),
    ("gelu", "function(a) return a:gelu() + a:gelu('tanh') end", "{x}"),
    ("index_select", "function(a) return a:index_select(2, {3, 1, 3}) end", "{x}"),
    ("layer_norm", "function(a) return a:layer_norm() + a:layer_norm(0.1) end", "{x}"),
    ("log", "function(a) return a:log() end", "{p}"),
    ("log_softmax", "function(a) return a:log_softmax() + a:log_softmax(1) end", "{x}"),
    ("logsumexp", "function(a) return a:logsumexp() end", "{x}"),
    ("masked_fill", "function(a) return a:masked_fill(lft.tensor({{1, 0, 0}, {0, 1, 0}}), 5) end", "{x}"),
    ("matmul", "function(a, b) return a:matmul(b:transpose()) + a:transpose():matmul(b):sum() end", "{x, y}"),
    ("matmul", "function(a, b) return a:reshape(2, 1, 3):matmul(b:reshape(1, 3, 1)) end", "{x, q}"),
    ("matmul", "function(a, b) return b:matmul(a:transpose()) + a:matmul(b) + b:matmul(b) end", "{x, q}"),
    ("max", "function(a) return a:max(2) + a:max() + a:max({1, 2}) end", "{x}"),
    ("maximum", "function(a, b) return a:maximum(b) + a:maximum(0.5) end", "{x, y}"),
    ("mean", "function(a) return a:mean(1, true) + a:mean() end", "{x}"),
    ("min", "function(a) return a:min(2) + a:min() end", "{x}"),
    ("minimum", "function(a, b) return a:minimum(b) + a:minimum(0.5) end", "{x, y}"),
    ("narrow", "function(a) return a:narrow(2, 2, 2) end", "{x}"),
    ("neg", "function(a) return a:neg() end", "{x}"),
    ("norm", "function(a) return a:norm() + a:norm(2) end", "{x}"),
    ("permute", "function(a) return a:permute(2, 1) end", "{x}"),
    ("pow", "function(a, b) return a:pow(b) + a:pow(1.5) + a:pow(2) end", "{p, q}"),
    ("recip", "function(a) return a:recip() end", "{p}"),
    ("relu", "function(a) return a:relu() end", "{x}"),
    ("reshape", "function(a) return a:reshape(3, -1) end", "{x}"),
    ("sigmoid", "function(a) return a:sigmoid() end", "{x}"),
    ("silu", "function(a) return a:silu() end", "{x}"),
    ("sin", "function(a) return a:sin() end", "{x}"),
    ("softmax", "function(a) return a:softmax() + a:softmax(1) end", "{x}"),
    ("sort", "function(a) return a:sort(2) + a:sort(1, true) end", "{x}"),
    ("sqr", "function(a) return a:sqr() end", "{x}"),
    ("sqrt", "function(a) return a:sqrt() end", "{p}"),
    ("squeeze", "function(a) return a:reshape(2, 1, 3):squeeze(2) end", "{x}"),
    ("std", "function(a) return a:std() + a:std(2) end", "{x}"),
    ("sum", "function(a) return a:sum() + a:sum(1) + a:sum({1, 2}, true) end", "{x}"),
    ("tanh", "function(a) return a:tanh() end", "{x}"),
    ("tile", "function(a) return a:tile(2, 3) end", "{x}"),
    ("to", "function(a) return a:to{device = 'cpu'} end", "{x}"),
    ("topk", "function(a) return a:topk(2) + a:topk(1, 1):sum() end", "{x}"),
    ("transpose", "function(a) return a:transpose() + a:transpose(1, 2) end", "{x}"),
    ("unsqueeze", "function(a) return a:unsqueeze(1) + a:unsqueeze(2) end", "{q}"),
    ("var", "function(a) return a:var() + a:var(2) end", "{x}"),
    ("lft.cat", "function(a, b) return lft.cat({a, b, a}, 2) end", "{x, y}"),
    ("lft.stack", "function(a, b) return lft.stack({a, b}, -1) end", "{x, y}"),
    ("lft.where", "function(a, b) return lft.where(x:gt(0), a, b) + lft.where(x:gt(0), a, 1) end", "{x, q}"),
    (
        "lft.ode.solve",
        "function(a) return (lft.ode.solve(function(s, t) return s * s * t - s end, a, {method = 'rk4', steps = 3})) end",
        "{p}",
    ),
];

/// What returns tensors that no gradient goes through: choices, marks, and what cuts the record on purpose.
const CONSTANT: [&str; 13] =
    ["argmax", "argmin", "ceil", "detach", "eq", "floor", "ge", "gt", "le", "lt", "ne", "round", "sign"];

#[test]
fn every_operation_is_checked() {
    let checked: BTreeSet<&str> = CASES.iter().map(|case| case.0).chain(CONSTANT).collect();
    for entry in &whole().entries {
        let differentiable = entry.owner() == "Tensor" && entry.kind() != Kind::Function;
        if differentiable && entry.returns.iter().any(|result| result.0.starts_with("Tensor")) {
            assert!(checked.contains(entry.short()), "{} has no gradient check", entry.name);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (name, f, inputs) in CASES {
        run(&format!("{CHECK} check('{name}', {f}, {inputs})"));
    }
}

#[test]
fn what_is_constant_has_no_gradient_and_hides_none() {
    for name in CONSTANT {
        let call = match name {
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" => format!("v:{name}(0)"),
            _ => format!("v:{name}()"),
        };
        run(&format!(
            "local v = lft.var(lft.tensor({{-1.5, 0.25, 3}}))
             local c = {call}
             assert(lft.var(lft.ones({{1}})):is_var() and not pcall(c.backward, c:sum()))
             local grads = (v * 2 + c):sum():backward()
             assert(grads[v][1]:item() == 2 and grads[v][3]:item() == 2)"
        ));
    }
}

/// Roots have no slope at zero; the length of nothing has one that does no harm, as in PyTorch.
#[test]
fn lengths_and_deviations_of_nothing_have_gradient_zero() {
    run("local zero, same = lft.var(lft.zeros({3})), lft.var(lft.ones({3}))
         local grads = (zero:norm() + same:std()):backward()
         assert(grads[zero]:abs():sum():item() == 0 and grads[same]:abs():sum():item() == 0)
         assert(zero:norm():item() == 0 and same:std():item() == 0)");
}

#[test]
fn powers_are_those_of_numbers() {
    run("local base = lft.tensor({-2, -2, -2, 0, 0, 2, -2})
         local exponent = lft.tensor({2, 3, -1, 0, 2, 0.5, 0.5})
         local found = (base ^ exponent):totable()
         for i, e in ipairs(exponent:totable()) do
           local b = base[i]:item()
           local expected = b ^ e
           assert(found[i] == expected or math.abs(found[i] - expected) < 1e-5 or (expected ~= expected and found[i] ~= found[i]),
             b .. ' ^ ' .. e .. ' = ' .. found[i])
         end
         local t = lft.tensor({0, 1, 2, 3})
         assert(((-2) ^ t):allclose(lft.tensor({1, -2, 4, -8})) and (0 ^ t):allclose(lft.tensor({1, 0, 0, 0})))");
}
