#!/usr/bin/env -S lft run
-- Which training algorithm, which solver, how many steps?
--
-- Trains one flow layer per algorithm in place of a block of the teacher, all on the same batches, evaluates
-- each with every solver and number of steps, and holds them against skipping layers.
-- `lft run scripts/ablate_steps.lua --seed 7` repeats it with another seed.

local lft = require("lft")

local options = lft.options{
  teacher  = {"data/teacher", "folder or hub id of the model"},
  train    = {"data/corpus/train.txt", "text to train on"},
  valid    = {"data/corpus/valid.txt", "held-out text"},
  block    = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  methods  = {{"fm", "fw", "hybrid", "regression"}, "training algorithms"},
  ks       = {{1, 2, 3, 4, 8}, "numbers of solver steps"},
  steps    = {600, "training steps"},
  batch    = {2, "sequences in a batch"},
  seq_len  = {128, "tokens in a sequence"},
  lr       = {4e-3, "peak learning rate"},
  warmup   = {20, "steps of linear warm-up"},
  layer    = {11, "teacher layer whose weights every flow starts from; -1 draws them at random"},
  windows  = {8, "held-out windows to evaluate on"},
  window   = {256, "tokens in a held-out window"},
  name     = {"ablate_steps", "name of the run"},
  report   = {"reports/ablate_steps.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher)
local train = lft.data.text(options.train, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = options.window})
---@type integer, integer
local first, last = options.block[1], options.block[2]
local block_name = ("{%d,%d}"):format(first, last)

local run <close> = lft.run{name = options.name, tags = {"ablation"}}

-- Train: one pass of the teacher feeds every student.

local students = {}
for i, method in ipairs(options.methods) do
  local velocity = lft.flow.velocity(teacher, {
    block = options.block, init = "zero", layer = options.layer >= 0 and options.layer or nil,
  })
  students[i] = {
    student = lft.flow.student(teacher, {block = options.block, velocity = velocity}),
    method = method,
    lr = options.lr,
    warmup = options.warmup,
  }
end
lft.train.together(students, {
  data = train, batch = options.batch, steps = options.steps, run = run, label = "training",
})

-- Evaluate: the teacher's side is computed once, too.

local reference = lft.eval.reference(teacher, {
  data = valid, block = options.block, windows = options.windows, batch = 4,
})

--- Logs the metrics of one way to replace the block, and returns the row. Equal seeds leave equal tables but for
--- `seconds`, the time that the evaluation took.
local function log(row, metrics)
  for name, value in pairs(metrics) do row[name] = value end
  row.block = block_name
  run:log(row)
  return row
end

--- The row with the lower KL; any row is better than none.
local function better(a, b)
  return (a and a.kl <= b.kl) and a or b
end

--- How many consecutive layers to skip: a few, and the whole block.
---@return integer[]
local function skip_counts()
  local counts, layers = {}, last - first
  for _, count in ipairs{1, 2, 3, 4, 6} do
    if count < layers then counts[#counts + 1] = count end
  end
  counts[#counts + 1] = layers
  return counts
end

local solvers = lft.ode.methods()
local total = #students * #solvers * #options.ks
for _, count in ipairs(skip_counts()) do total = total + last - first - count + 1 end
local bar = lft.progress(total, "evaluating")

--- Every position for `count` skipped layers: logs the best one and the middle one.
local function skips(count)
  local best, middle
  local middle_from = first + (last - first - count) // 2
  for from = first, last - count do
    local row = reference:skip{from = from, count = count}
    row.from = from
    best = better(best, row)
    if from == middle_from then middle = row end
    bar:step(1, ("skip-%d"):format(count))
  end
  local function log_skip(label, metrics)
    local removed = lft.flow.skip(teacher, {from = metrics.from, count = count}).parameters_removed
    return log({
      kind = "skip", method = "skip", label = ("skip-%d %s"):format(count, label), count = count,
      layers_removed = count, params_removed = removed,
    }, metrics)
  end
  if last - first > count then log_skip("middle", middle) end
  return log_skip("best", best)
end

--- Every solver and number of steps for one student: logs all and returns the best.
local function flows(method, student)
  local best
  for _, solver in ipairs(solvers) do
    for _, k in ipairs(options.ks) do
      local metrics = student:evaluate{data = reference, solver = solver, steps = k}
      best = better(best, log({
        kind = "flow", method = method, solver = solver, k = k, label = method,
        layers_removed = last - first - 1, params_removed = student.parameters_removed,
      }, metrics))
      bar:step(1, ("%s, %s, k = %d"):format(method, solver, k))
    end
  end
  return best
end

local rows, skip_2 = {}, nil
for _, count in ipairs(skip_counts()) do
  local row = skips(count)
  rows[#rows + 1] = row
  if count == 2 then skip_2 = row.kl end
end
for _, trained in ipairs(students) do
  rows[#rows + 1] = flows(trained.method, trained.student)
end
bar:finish()

-- Show: the best of every method beside the skip baselines.

table.sort(rows, function(a, b) return a.kl < b.kl end)
for _, row in ipairs(rows) do
  row["kl / skip-2"] = skip_2 and row.kl / skip_2
end
print(("Block %s, teacher perplexity %.2f, %d training steps, %d tokens evaluated"):format(
  block_name, reference.teacher_ppl, options.steps, rows[1].tokens))
lft.table(rows, {columns = {
  "label", "solver", "k", "nfe", "kl", "kl / skip-2", "nmse", "ppl", "layers_removed", "params_removed",
}})

run:finish()
print("report: " .. run:report(options.report))
