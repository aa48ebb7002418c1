#!/usr/bin/env -S lft run
-- Which block should a flow replace?
--
-- For every block {m, n}: the recoupling ratio (how often straight paths from x_m to x_n cross, by exact optimal
-- transport) with a 95 % confidence interval over sequences, and the rival criteria, the cosine distance of
-- LLM-Streamline and the angular distance of "The Unreasonable Ineffectiveness of the Deeper Layers". The run's
-- table has one row a block, with columns m, n, ratio, lo, hi; the report draws it.
--
-- For each size of block that is asked for, every criterion names its block. With `--train-steps` the same small
-- training is given to each of them (and to some in between), so that the choice can be held against the KL
-- that a flow reaches there.

local lft = require("lft")

local options = lft.options{
  teacher   = {"data/teacher", "folder or hub id of the model"},
  train     = {"data/corpus/train.txt", "text to measure and to train on"},
  valid     = {"data/corpus/valid.txt", "held-out text"},
  sequences = {16, "sequences to measure the ratio on"},
  tokens    = {128, "tokens in a sequence; the assignment is among them"},
  sizes     = {{6, 12}, "sizes of block to choose for"},
  train_steps = {0, "steps of a training in every block of a size that stands in a grid of --stride; 0 for none"},
  stride    = {3, "distance between the first layers of the blocks that are trained"},
  batch     = {2, "sequences in a training batch"},
  lr        = {4e-3, "peak learning rate"},
  windows   = {8, "held-out windows of 256 tokens"},
  name      = {"recoupling", "name of the run"},
  report    = {"reports/recoupling.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher)
local layers = teacher.config.num_hidden_layers
local data = lft.data.text(options.train, {tokenizer = teacher.tokenizer, seq_len = options.tokens})
local run <close> = lft.run{name = options.name, tags = {"recoupling"}}

-- Ratios: every pair of boundaries, one sequence at a time.

local ratios = {}
local bar = lft.progress(options.sequences, "recoupling")
for ids in data:batches{batch = 1, steps = options.sequences} do
  ---@type table<integer, Tensor>
  local latents = {[0] = teacher:hidden(ids, 0)}
  for b = 1, layers do latents[b] = teacher:run(latents[b - 1], b - 1, b) end
  for m = 0, layers - 1 do
    for n = m + 1, layers do
      local key = m * (layers + 1) + n
      ratios[key] = ratios[key] or {}
      table.insert(ratios[key], (lft.flow.recoupling(latents[m], latents[n])))
    end
  end
  bar:step()
end
bar:finish()

--- Mean and half width of the 95 % interval of the mean.
local function interval(values)
  local sum = 0
  for _, x in ipairs(values) do sum = sum + x end
  local mean, square = sum / #values, 0
  for _, x in ipairs(values) do square = square + (x - mean) ^ 2 end
  return mean, #values > 1 and 1.96 * math.sqrt(square / (#values - 1) / #values) or 0
end

local distances = lft.rivals.distances(teacher, {data = data, batches = options.sequences, batch = 1})
local blocks = {}
for m = 0, layers - 1 do
  for n = m + 1, layers do
    local ratio, half = interval(ratios[m * (layers + 1) + n])
    local row = {
      kind = "recoupling", m = m, n = n, ratio = ratio, lo = math.max(0, ratio - half), hi = ratio + half,
      cosine = distances:cosine(m, n), angular = distances:angular(m, n),
    }
    run:log(row)
    blocks[#blocks + 1] = row
  end
end

-- Choose: the block of each size that a criterion likes best.

local function best(size, criterion)
  local found
  for _, row in ipairs(blocks) do
    if row.n - row.m == size and (not found or row[criterion] < found[criterion]) then found = row end
  end
  return found
end

local choices = {}
for _, size in ipairs(options.sizes) do
  for _, criterion in ipairs{"ratio", "cosine", "angular"} do
    local row = best(size, criterion)
    if row then
      choices[#choices + 1] = {
        layers = size, criterion = criterion, block = ("{%d,%d}"):format(row.m, row.n),
        ratio = row.ratio, lo = row.lo, hi = row.hi, cosine = row.cosine, angular = row.angular,
      }
    end
  end
end
print(("%d blocks, %d sequences of %d tokens"):format(#blocks, options.sequences, options.tokens))
lft.table(choices, {columns = {"layers", "criterion", "block", "ratio", "lo", "hi", "cosine", "angular"}})

-- Compare: what a flow reaches where.

--- Kendall's τ between a criterion and the KL: 1 when both order the blocks alike.
local function tau(rows, criterion)
  local sum, pairs_ = 0, 0
  for i = 1, #rows do
    for j = i + 1, #rows do
      local a, b = rows[i][criterion] - rows[j][criterion], rows[i].kl - rows[j].kl
      sum = sum + (a * b > 0 and 1 or a * b < 0 and -1 or 0)
      pairs_ = pairs_ + 1
    end
  end
  return pairs_ > 0 and sum / pairs_ or 0
end

if options.train_steps > 0 then
  local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = 256})
  for _, size in ipairs(options.sizes) do
    local members, rows = {}, {}
    for _, row in ipairs(blocks) do
      local wanted = row.n - row.m == size and row.m % options.stride == 0
      for _, criterion in ipairs{"ratio", "cosine", "angular"} do
        wanted = wanted or row == best(size, criterion)
      end
      if wanted then
        local velocity = lft.flow.velocity(teacher, {block = {row.m, row.n}, layer = row.n - 1})
        rows[#rows + 1] = row
        members[#members + 1] = {
          student = lft.flow.student(teacher, {velocity = velocity}), method = "fm", lr = options.lr, warmup = 20,
        }
      end
    end
    lft.train.together(members, {
      data = data, batch = options.batch, steps = options.train_steps, run = run,
      label = ("blocks of %d layers"):format(size),
    })
    for i, row in ipairs(rows) do
      local block = {row.m, row.n}
      local reference = lft.eval.reference(teacher, {data = valid, block = block, windows = options.windows})
      row.kl = members[i].student:evaluate{data = reference, solver = "midpoint", steps = 1}.kl
      row.skip = reference:skip{from = row.m, count = size}.kl
      row.block = ("{%d,%d}"):format(row.m, row.n)
      run:log{
        kind = "choice", method = "fm", solver = "midpoint", k = 1, block = row.block, m = row.m, n = row.n,
        kl = row.kl, skip_kl = row.skip, ratio = row.ratio, cosine = row.cosine, angular = row.angular,
      }
    end
    table.sort(rows, function(a, b) return a.kl < b.kl end)
    local summary = "Flows on blocks of %d layers after %d steps of FM; Kendall's tau with the KL: "
      .. "ratio %.2f, cosine %.2f, angular %.2f"
    print(summary:format(size, options.train_steps, tau(rows, "ratio"), tau(rows, "cosine"), tau(rows, "angular")))
    lft.table(rows, {columns = {"block", "kl", "skip", "ratio", "lo", "hi", "cosine", "angular"}})
  end
end

run:finish()
print("report: " .. run:report(options.report))
