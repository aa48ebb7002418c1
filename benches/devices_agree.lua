-- Trains one flow by flow walking on the CPU and on the CUDA card, from the same weights, data and times, and holds the
-- two loss curves against each other:
--
--     lft --device cuda run benches/devices_agree.lua

local lft = require("lft")

local options = lft.options{
  steps   = {200, "training steps"},
  batch   = {4, "windows of a step"},
  seq_len = {128, "tokens of a window"},
  lr      = {1e-3, "learning rate"},
  block   = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  dtype   = {"f32", "number format of the teacher on the card"},
  card    = {"cuda", "device that is held against the CPU"},
}

local function curve(device, dtype)
  local teacher = lft.pythia.load("data/teacher", {dtype = dtype, device = device})
  local text = lft.data.text("data/corpus/train.txt", {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
  local student = lft.flow.student(teacher, {block = options.block})
  local u = student.velocity
  local adamw = lft.optim.adamw{params = u:parameters(), lr = options.lr}
  local losses = {}
  for ids in text:batches{batch = options.batch, seed = 1, steps = options.steps} do
    local x0, x1 = student:latents(ids:narrow(2, 1, options.seq_len))
    local loss = lft.flow.walking_loss(u, x0, x1, {seed = #losses})
    adamw:step(loss:backward(), {clip = 1})
    losses[#losses + 1] = loss:item()
  end
  return losses
end

local here, there = curve("cpu", "f32"), curve(options.card, options.dtype)
local worst, sum = 0, 0
for step, loss in ipairs(here) do
  local difference = math.abs(there[step] - loss) / loss
  worst, sum = math.max(worst, difference), sum + difference
  if step == 1 or step % 40 == 0 then
    print(("step %3d: loss %.6f on the CPU, %.6f on %s, %.1e apart"):format(step, loss, there[step], options.card, difference))
  end
end
print(("%d steps in %s: relative difference of the losses at most %.1e, on average %.1e"):format(
  #here, options.dtype, worst, sum / #here))
