#!/usr/bin/env -S lft run
-- Does it pay to give every token its own number of steps? The paper leaves this open.
--
-- Trains a student, and evaluates it with fixed numbers of steps and with thresholds at which a token stops early
-- (`exit`, see docs/methods.md). What a threshold reaches is held against fixed steps at the same number of
-- evaluations a token. Between two numbers of steps their KL is interpolated along a straight line, which is what a
-- choice of tokens by lot would give.
--   lft run scripts/token_steps.lua
--   lft run scripts/token_steps.lua -- --method fm:0.5,fw:0.5 --solver midpoint

local lft = require("lft")

local options = lft.options{
  teacher  = {"data/teacher", "folder or hub id of the model"},
  train    = {"data/corpus/train.txt", "text to train on"},
  valid    = {"data/corpus/valid.txt", "held-out text"},
  block    = {{6, 18}, "m,n: the layers m to n - 1 are replaced"},
  method   = {"kl", "training algorithm, or several one after the other: fm:0.5,fw:0.5"},
  solver   = {"euler", "solver, in training and evaluation"},
  walk     = {3, "steps of the integration in training"},
  ks       = {{1, 2, 3, 4, 5, 6}, "fixed numbers of steps"},
  most     = {{3, 6}, "largest numbers of steps of a token that may stop early"},
  exits    = {{0.02, 0.05, 0.1, 0.15, 0.2, 0.3}, "thresholds at which it does"},
  seeds    = {{1, 2, 3}, "seeds, one training each"},
  steps    = {300, "training steps"},
  batch    = {8, "sequences in a batch"},
  seq_len  = {256, "tokens in a sequence"},
  lr       = {4e-3, "peak learning rate"},
  warmup   = {20, "steps of linear warm-up"},
  dtype    = {"f32", "number format of the teacher: f32, bf16 or f16"},
  windows  = {16, "held-out windows of 256 tokens"},
  name     = {"token_steps", "name of the run"},
  report   = {"reports/token_steps.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher, {dtype = options.dtype})
local train = lft.data.text(options.train, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = 256})
local run <close> = lft.run{name = options.name, tags = {"per-token steps"}}
local reference = lft.eval.reference(teacher, {
  data = valid, block = options.block, windows = options.windows, batch = 4,
})

--- A student from the block's last layer, trained.
local function trained(seed)
  local velocity = lft.flow.velocity(teacher, {block = options.block, layer = options.block[2] - 1, seed = seed})
  local student = lft.flow.student(teacher, {velocity = velocity})
  student:train{
    [options.method:find(":") and "curriculum" or "method"] = options.method, solver = options.solver, walk = options.walk, kl_solver = options.solver,
    kl_steps = options.walk, data = train, steps = options.steps, batch = options.batch, lr = options.lr,
    warmup = options.warmup, seed = seed, run = run,
  }
  return student
end

--- Evaluates, and logs a row; without `exit` the steps are fixed.
local function evaluate(student, seed, k, exit)
  local row = student:evaluate{data = reference, solver = options.solver, steps = k, exit = exit}
  row.kind, row.method = "flow", exit and ("%s, exit %g"):format(options.method, exit) or options.method
  row.solver, row.k, row.exit, row.seed = options.solver, k, exit, seed
  row.block = ("{%d,%d}"):format(options.block[1], options.block[2])
  run:log(row)
  return row
end

--- The KL of fixed steps at a number of evaluations a token; `fixed` in the order of their evaluations.
local function interpolated(fixed, nfe)
  for i = 2, #fixed do
    local a, b = fixed[i - 1], fixed[i]
    if nfe <= b.nfe then
      local share = math.max(0, (nfe - a.nfe) / (b.nfe - a.nfe))
      return a.kl + share * (b.kl - a.kl)
    end
  end
  return fixed[#fixed].kl
end

-- Measure: the same settings for every seed, in the same order.

local settings = {}
for _, k in ipairs(options.ks) do settings[#settings + 1] = {way = "fixed k", k = k} end
for _, k in ipairs(options.most) do
  for _, exit in ipairs(options.exits) do
    settings[#settings + 1] = {way = ("per token, at most %d"):format(k), k = k, exit = exit}
  end
end
local measured = {}
for i in ipairs(settings) do measured[i] = {} end
for _, seed in ipairs(options.seeds) do
  local student = trained(seed)
  local fixed = {}
  for i, setting in ipairs(settings) do
    local row = evaluate(student, seed, setting.k, setting.exit)
    measured[i][#measured[i] + 1] = row
    if setting.exit then row.ratio = row.kl / interpolated(fixed, row.mean_nfe) else fixed[#fixed + 1] = row end
  end
end

-- Show: means over the seeds.

local function mean(rows, column)
  local sum = 0
  for _, row in ipairs(rows) do sum = sum + row[column] end
  return sum / #rows
end

local function range(rows, column)
  local lo, hi = math.huge, -math.huge
  for _, row in ipairs(rows) do lo, hi = math.min(lo, row[column]), math.max(hi, row[column]) end
  return ("%.3f..%.3f"):format(lo, hi)
end

local best
for i, setting in ipairs(settings) do
  for _, column in ipairs{"mean_nfe", "kl", "ppl"} do setting[column] = mean(measured[i], column) end
  if setting.exit then
    setting["KL / fixed"], setting.range = mean(measured[i], "ratio"), range(measured[i], "ratio")
    if not best or setting["KL / fixed"] < best["KL / fixed"] then best = setting end
  end
end
print(("%s through %s, block {%d,%d}, %d steps of %d x %d tokens, %d seeds; KL / fixed: at equal evaluations a token"):format(
  options.method, options.solver, options.block[1], options.block[2], options.steps, options.batch,
  options.seq_len, #options.seeds))
lft.table(settings, {columns = {"way", "k", "exit", "mean_nfe", "kl", "ppl", "KL / fixed", "range"}})

local ratio = best["KL / fixed"]
local verdict = ("At equal mean NFE, per-token k gives a KL %.1f %% %s than fixed k (interpolated) at its best threshold, "
  .. "exit = %g with at most %d steps: %.4f in %.2f evaluations a token; the ratio was %s over the seeds"):format(
  100 * math.abs(1 - ratio), ratio < 1 and "lower" or "higher", best.exit, best.k, best.kl, best.mean_nfe, best.range)
print(verdict)

run:finish()
print("report: " .. run:report{path = options.report, title = "A number of steps for each token", sections = {
  verdict,
  lft.plot.line{
    data = settings, x = "mean_nfe", y = "kl", group = "way", title = "KL against evaluations a token",
    x_label = "velocity evaluations a token, on average", y_label = "KL",
  },
}})
