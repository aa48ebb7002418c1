#!/usr/bin/env -S lft run
-- An idea that is not in the paper: teach the walk to agree with itself.
--
-- Flow Walking asks only where the walk ends. Here two short steps must, in addition, arrive where one long
-- step does: the long step learns from the two short ones, so that the student loses less when it may take
-- fewer steps. Both variants see the same batches and times; the table shows the KL for each number of steps.

local lft = require("lft")

local options = lft.options{
  teacher = {"data/teacher", "folder or hub id of the model"},
  train   = {"data/corpus/train.txt", "text to train on"},
  valid   = {"data/corpus/valid.txt", "held-out text"},
  block   = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  weights = {{0.0, 0.5}, "weights of the agreement; 0 is Flow Walking"},
  ks      = {{1, 2, 4}, "numbers of solver steps to evaluate"},
  steps   = {200, "training steps"},
  batch   = {2, "sequences in a batch"},
  seq_len = {128, "tokens in a sequence"},
  lr      = {4e-3, "peak learning rate"},
  layer   = {11, "teacher layer whose weights the flow starts from"},
  windows = {8, "held-out sequences to evaluate on"},
}
local teacher = lft.pythia.load(options.teacher)
local text = {tokenizer = teacher.tokenizer, seq_len = options.seq_len}
local train, valid = lft.data.text(options.train, text), lft.data.text(options.valid, text)

--- One midpoint step of length d from time t; both (B).
---@return Tensor
local function midpoint(u, x, t, d)
  local length = d:reshape(-1, 1, 1)
  return x + length * u(x + length / 2 * u(x, t), t + d / 2)
end

--- How far one long step ends from two short ones, which are the example and receive no gradient.
local function disagreement(u, x, t, d)
  local half = d / 2
  local target = lft.no_grad(function()
    return midpoint(u, midpoint(u, x, t, half), t + half, half)
  end)
  return ((midpoint(u, x, t, d) - target) ^ 2):mean()
end

local function trained(weight)
  local u = lft.flow.velocity(teacher, {block = options.block, layer = options.layer})
  local student = lft.flow.student(teacher, {velocity = u})
  local adamw = lft.optim.adamw{params = u:parameters()}
  local rate = lft.optim.schedule{lr = options.lr, steps = options.steps, warmup = 20}
  local bar = lft.progress(options.steps, ("agreement %g"):format(weight))
  local step = 0
  for ids in train:batches{batch = options.batch, steps = options.steps} do
    step = step + 1
    local x0, x1 = student:latents(ids)
    local draw = {step = step}
    local loss = lft.flow.walking_loss(u, x0, x1, draw)
    if weight > 0 then
      local times = lft.flow.walk_times(options.batch, draw)
      local t, d = times[2], times[4] - times[2]
      local s = t:reshape(-1, 1, 1)
      loss = loss + weight * disagreement(u, (1 - s) * x0 + s * x1, t, d)
    end
    adamw:step(loss:backward(), {lr = rate(step), clip = 1})
    bar:step()
  end
  bar:finish()
  return student
end

local run <close> = lft.run{name = "shortcut", tags = {"own algorithm"}}
local reference = lft.eval.reference(teacher, {
  data = valid, block = options.block, windows = options.windows, batch = options.batch,
})
local rows, columns = {}, {"weight"}
for _, k in ipairs(options.ks) do columns[#columns + 1] = "KL, k = " .. k end
for i, weight in ipairs(options.weights) do
  local student = trained(weight)
  rows[i] = {weight = weight}
  for _, k in ipairs(options.ks) do
    local metrics = student:evaluate{data = reference, solver = "midpoint", steps = k}
    rows[i]["KL, k = " .. k] = metrics.kl
    run:log{method = "shortcut", weight = weight, solver = "midpoint", k = k, kl = metrics.kl, nmse = metrics.nmse}
  end
end
lft.table(rows, {columns = columns})
