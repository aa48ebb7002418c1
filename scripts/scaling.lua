#!/usr/bin/env -S lft run
-- How do costs grow?
--
-- One thing grows at a time: the tokens of a sequence, the sequences of a batch, the layers of the block, the steps of
-- the solver, the vocabulary that logits are taken over, the students that train on one teacher pass. Each is doubled a
-- few times, and the table shows by which factor the time grew with it. `exponent` is the slope between neighbours in
-- logarithms: 1 is proportional, 0 is free, 2 is what attention tends to on long sequences.
--
-- Threads are set outside: RAYON_NUM_THREADS=1 lft run scripts/scaling.lua

local lft = require("lft")

local options = lft.options{
  teacher  = {"data/teacher", "folder or hub id of the model"},
  valid    = {"data/corpus/valid.txt", "text that is read"},
  from     = {6, "boundary where the block begins"},
  tokens   = {{32, 64, 128, 256, 512}, "tokens of a sequence"},
  batch    = {{1, 2, 4, 8}, "sequences of a batch"},
  layers   = {{3, 6, 12}, "layers of the block"},
  steps    = {{1, 2, 4, 8}, "midpoint steps of the flow"},
  students = {{1, 2, 4, 8}, "students that train together"},
  samples  = {7, "samples of each timing"},
  warmup   = {1, "calls before them"},
  name     = {"scaling", "name of the run"},
  report   = {"reports/scaling.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher)
local text = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = 512})
local width, vocabulary = teacher.config.hidden_size, teacher.config.vocab_size

--- Token ids (batch, tokens).
local function ids(batch, tokens)
  local window = assert(text:batches{batch = batch, steps = 1, seed = 1}())
  return window:narrow(2, 1, tokens)
end

--- A student of the block of so many layers.
local function student(layers)
  local block = {options.from, options.from + layers}
  return lft.flow.student(teacher, {velocity = lft.flow.velocity(teacher, {block = block, init = "teacher"})})
end

--- One step of flow matching for so many students on one pass of the teacher.
local function training(layers, count, batch, tokens)
  local data = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = tokens})
  local students = {}
  for i = 1, count do students[i] = {student = student(layers), method = "fm", lr = 1e-4} end
  return function() lft.train.together(students, {data = data, steps = 4, batch = batch}) end
end

-- What grows, over which values, and the work at one of them.
local axes = {
  {name = "tokens: teacher", values = options.tokens, work = function(n)
    local window = ids(2, n)
    return function() teacher:hidden(window, 18) end
  end},
  {name = "tokens: flow", values = options.tokens, work = function(n)
    local s, x0 = student(6), lft.randn({2, n, width}, {seed = 1})
    return function() lft.no_grad(lft.ode.solve, s.velocity, x0, {method = "midpoint", steps = 3}) end
  end},
  {name = "batch: teacher", values = options.batch, work = function(n)
    local window = ids(n, 128)
    return function() teacher:hidden(window, 18) end
  end},
  {name = "block: FM steps", values = options.layers, work = function(n) return training(n, 1, 2, 128) end},
  {name = "solver steps", values = options.steps, work = function(n)
    local s, x0 = student(6), lft.randn({2, 128, width}, {seed = 1})
    return function() lft.no_grad(lft.ode.solve, s.velocity, x0, {method = "midpoint", steps = n}) end
  end},
  {name = "vocabulary: KL", values = {vocabulary // 4, vocabulary // 2, vocabulary}, work = function(n)
    local p, q = lft.randn({256, n}, {seed = 1}), lft.randn({256, n}, {seed = 2})
    return function() lft.eval.kl(p, q) end
  end},
  {name = "students: FM steps", values = options.students, work = function(n) return training(12, n, 2, 128) end},
}

local run <close> = lft.run{name = options.name}
local total = 0
for _, axis in ipairs(axes) do total = total + #axis.values end
local bar = lft.progress(total, "timing")
local rows = {}
for _, axis in ipairs(axes) do
  local first, before
  for _, value in ipairs(axis.values) do
    local effort = {samples = options.samples, warmup = options.warmup}
    local timing = lft.bench(axis.name .. " " .. value, effort, axis.work(value))
    local row = {
      axis = axis.name, value = value, ms = 1e3 * timing.median, low = 1e3 * timing.ci.lo, high = 1e3 * timing.ci.hi,
    }
    first = first or row
    row.times = row.ms / first.ms
    if before then row.exponent = math.log(row.ms / before.ms) / math.log(value / before.value) end
    if axis.name:match("^students") then row.allowed = 1 + 0.35 * (value - 1) end
    before = row
    run:log(row)
    rows[#rows + 1] = row
    bar:step(1, axis.name .. " " .. value)
  end
end
bar:finish()
lft.table(rows, {columns = {"axis", "value", "ms", "low", "high", "times", "exponent", "allowed"}})
run:finish()
print("report: " .. run:report(options.report))
