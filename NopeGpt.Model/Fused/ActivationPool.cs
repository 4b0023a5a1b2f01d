using System.Runtime.InteropServices;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

/// <summary>The large tensors inside of one model's operators, used again from pass to pass: what is given back to the system has to be taken from it anew,
/// page by page, and huge pages are asked for. It holds as much as the largest pass needed. For the threads that make this model's passes.</summary>
internal sealed partial class ActivationPool : IDisposable
{
    private const int HugePages = 14; // MADV_HUGEPAGE
    private const long Page = 4096, Large = 1 << 20;

    private readonly Lock _gate = new();
    private readonly List<Tensor> _free = [];
    private bool _disposed;

    /// <summary>Float32 tensors in a CPU's memory, of the shape [rows, columns] and with anything in them.</summary>
    public Loan Rent(long rows, long columns)
    {
        Tensor? memory = Take(rows * columns);
        if (memory is null)
        {
            using IDisposable quiet = no_grad();
            memory = empty([rows * columns], ScalarType.Float32, CPU).DetachFromDisposeScope();
            Advise(memory);
        }
        return new(this, memory, memory.narrow(0, 0, rows * columns).view(rows, columns).DetachFromDisposeScope());
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            foreach (Tensor memory in _free) memory.Dispose();
            _free.Clear();
        }
    }

    private Tensor? Take(long size)
    {
        lock (_gate)
        {
            int best = -1;
            for (int i = 0; i < _free.Count; i++)
            {
                long has = _free[i].numel();
                if (has >= size && has <= 2 * size && (best < 0 || has < _free[best].numel())) best = i;
            }
            if (best < 0)
            {
                // Passes of another size have begun: what fits none of them is not kept.
                foreach (Tensor other in _free) other.Dispose();
                _free.Clear();
                return null;
            }
            Tensor taken = _free[best];
            _free.RemoveAt(best);
            return taken;
        }
    }

    private void GiveBack(Tensor memory)
    {
        lock (_gate)
        {
            if (_disposed) memory.Dispose();
            else _free.Add(memory);
        }
    }

    // The pages that lie wholly inside. Where the system has none to give, nothing changes.
    private static void Advise(Tensor memory)
    {
        long start = Dispatcher.DataPointer(memory), end = start + (memory.numel() * sizeof(float));
        if (end - start < Large) return;
        start = (start + Page - 1) / Page * Page;
        _ = MemoryAdvise((nint)start, (nuint)((end / Page * Page) - start), HugePages);
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int MemoryAdvise(nint start, nuint length, int advice);

    /// <summary>A tensor and the duty to give its memory back.</summary>
    internal sealed class Loan(ActivationPool owner, Tensor memory, Tensor tensor) : IDisposable
    {
        private bool _back;

        public Tensor Tensor => tensor;

        public void Dispose()
        {
            if (_back) return;
            _back = true;
            tensor.Dispose();
            owner.GiveBack(memory);
        }
    }
}
