-- Student:train. In a point of a sweep it waits for the points that need the same batches of the same teacher; the
-- sweep trains them together and resumes it with what came of its own student.
local train, joins, yield, isyieldable, fail = ...

return function(student, options)
  if not (isyieldable() and joins()) then return train(student, options) end
  local result, message = yield(student, options)
  if not result then fail(message) end
  return result
end
