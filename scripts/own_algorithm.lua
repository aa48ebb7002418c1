#!/usr/bin/env -S lft run
-- Flow Walking from the primitives, and held against the one that lft has built in.
--
-- Everything that makes the algorithm stands here: the walk, its loss and the loop. Change a line and it is
-- another algorithm. Both losses agree, because both draw the same batches, times and first weights.
-- `--bench 20` times both in twenty pairs of trainings.

local lft = require("lft")

local options = lft.options{
  teacher = {"data/teacher", "folder or hub id of the model"},
  train   = {"data/corpus/train.txt", "text to train on"},
  block   = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  steps   = {100, "training steps"},
  batch   = {2, "sequences in a batch"},
  seq_len = {128, "tokens in a sequence"},
  bench   = {0, "pairs of trainings to time"},
}
local steps, batch = options.steps, options.batch
local teacher = lft.pythia.load(options.teacher)
local data = lft.data.text(options.train, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})

local function new_student() return lft.flow.student(teacher, {block = options.block}) end

--- One midpoint step of length d from time t; both (B), a number of its own for each example.
local function midpoint(u, x, t, d)
  local length = d:reshape(-1, 1, 1)
  return x + length * u(x + length / 2 * u(x, t), t + d / 2)
end

local function own()
  local student = new_student()
  local u, step, loss = student.velocity, 0, nil
  local adamw, rate = lft.optim.adamw{params = u:parameters()}, lft.optim.schedule{steps = steps}
  for ids in data:batches{batch = batch, steps = steps} do
    step = step + 1
    local x0, x1 = student:latents(ids)
    local times, x = lft.flow.walk_times(batch, {walk = 3, step = step}), x0
    for i = 1, 3 do x = midpoint(u, x, times[i], times[i + 1] - times[i]) end
    loss = ((x - x1) ^ 2):mean()
    adamw:step(loss:backward(), {lr = rate(step), clip = 1})
  end
  return loss:item()
end

local function built_in()
  return new_student():train{method = "fw", data = data, steps = steps, batch = batch}.loss
end

print(("own %.8f, built in %.8f"):format(own(), built_in()))
local pair = {a = built_in, b = own, names = {"built in", "own"}, samples = options.bench, warmup = 0}
if options.bench > 0 then print(lft.bench.compare(pair).verdict) end
