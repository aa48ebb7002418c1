-- lft's side of compare_cuda.py: does pieces of work on the CUDA card on command.
--
-- Reads lines from standard input, each a work's name and a number n, does the work n times, waits for the card and
-- answers `done`. The program that asks holds the clock. With n = 0 it does the work once and answers the bytes of tensors
-- at the highest point beyond those before.

local lft = require("lft")

local options = lft.options{
  model   = {"data/teacher", "folder of the model"},
  block   = {{6, 18}, "m,n: the layers m to n - 1 are replaced"},
  batch   = {8, "sequences in a batch"},
  seq_len = {2048, "tokens in a sequence"},
  tokens  = {64, "tokens to generate"},
  dtype   = {"bf16", "number format of the teacher"},
}

local model = lft.pythia.load(options.model, {dtype = options.dtype})
local student = lft.flow.student(model, {block = options.block})
local u = student.velocity
local adamw = lft.optim.adamw{params = u:parameters(), lr = 1e-4}
local rows = {}
for i = 1, options.batch do
  rows[i] = {}
  for j = 1, options.seq_len do rows[i][j] = (i * 7919 + j * 104729) % 4000 end
end
local ids = lft.tensor(rows, {dtype = "u32", device = "cpu"})
local x0, x1 = student:latents(ids)

--- Waits for the card: the value of one element cannot be had earlier.
local function wait(x) return x:narrow(1, 1, 1):narrow(2, 1, 1):narrow(3, 1, 1):reshape{1}:item() end

local function training(loss, teacher)
  return function(n)
    for _ = 1, n do
      local a, b = x0, x1
      if teacher then a, b = student:latents(ids) end
      adamw:step(loss(u, a, b):backward(), {clip = 1})
    end
  end
end

local works = {
  latents = function(n) local x for _ = 1, n do x = model:hidden(ids, options.block[2]) end wait(x) end,
  logits = function(n) local x for _ = 1, n do x = model:logits(ids) end wait(x) end,
  fm = training(lft.flow.matching_loss), fm_teacher = training(lft.flow.matching_loss, true),
  fw = training(lft.flow.walking_loss), fw_teacher = training(lft.flow.walking_loss, true),
  generate = function(n)
    local prompt = table.move(rows[1], 1, 16, 1, {})
    for _ = 1, n do model:generate(prompt, {max_tokens = options.tokens, temperature = 0}) end
  end,
}

local function answer(word)
  io.write(word, "\n")
  io.flush()
end
answer("ready")
for line in io.lines() do
  local name, n = line:match("^([%w_]+) (%d+)$")
  local work, count = works[name], math.tointeger(n)
  if count == 0 then
    local measured = lft.bench(name, {samples = 1, warmup = 0}, function() work(1) end)
    answer(tostring(measured.peak_bytes))
  else
    work(count)
    answer("done")
  end
end
