using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp;
using static NopeGpt.Model.Native.AutogradFunctions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>The backward pass of an operator of ours, with what it needs.</summary>
internal abstract class BackwardPass : IDisposable
{
    /// <summary>Called once, without autograd and in a dispose scope, which takes what is made.</summary>
    /// <param name="gradients">By the outputs; null where none came.</param>
    /// <returns>By the inputs that the node was attached with. They must not be tensors that came in.</returns>
    public abstract Tensor[] Run(IReadOnlyList<Tensor?> gradients);

    /// <summary>Lets go of what is kept: after <see cref="Run"/>, or where no backward pass comes.</summary>
    public abstract void Dispose();
}

/// <summary>Puts operators of ours into autograd's graph. TorchSharp's own functions allocate a tensor as large as each output and keep what was saved
/// until the graph is gone; here it is let go of as soon as the backward pass has used it.</summary>
internal static unsafe class AutogradNode
{
    private const int Most = 4;
    private static readonly ConcurrentBag<Slot> Free = [];

    // While libtorch has a slot, nothing else refers to it.
    private static readonly ConcurrentBag<Slot> All = [];

    // libtorch copies what a backward pass returns after it has returned, so it is kept until the thread's next one.
    [ThreadStatic]
    private static List<Tensor>? returned;

    /// <summary>Makes tensors the results of an operator. Where nothing needs a gradient they stay as they are.</summary>
    /// <param name="outputs">Without gradients so far, at most 4. They are replaced.</param>
    /// <param name="inputs">Those that need a gradient, at most 4. Parameters whose gradients the pass adds up by itself are not among them.</param>
    /// <param name="needed">Whether an input or a parameter needs a gradient.</param>
    public static Tensor[] Attach(Tensor[] outputs, IReadOnlyList<Tensor> inputs, BackwardPass pass, bool needed)
    {
        if (!needed)
        {
            pass.Dispose();
            return outputs;
        }
        if (outputs.Length > Most || inputs.Count > Most) throw new ArgumentException($"An operator has at most {Most} inputs and outputs here.", nameof(inputs));
        if (!Free.TryTake(out Slot? slot)) All.Add(slot = new());
        slot.Take(pass, inputs.Count);
        nint* made = stackalloc nint[Most], from = stackalloc nint[Most], to = stackalloc nint[Most];
        for (int i = 0; i < inputs.Count; i++) from[i] = inputs[i].Handle;
        for (int i = 0; i < outputs.Length; i++) (to[i], made[i]) = (outputs[i].Handle, 0);
        AutogradFunctions.Attach(slot.Arrive, slot.Delete, new() { Tensors = from, Size = inputs.Count }, new() { Tensors = to, Size = outputs.Length }, made);
        GC.KeepAlive(inputs);
        Tensor[] attached = new Tensor[outputs.Length];
        for (int i = 0; i < outputs.Length; i++)
        {
            if (made[i] == 0) throw new InvalidOperationException("libtorch refused an operator of the network; its reason is on the error stream.");
            attached[i] = Tensor.UnsafeCreateTensor(made[i]);
            outputs[i].Dispose();
        }
        return attached;
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    private delegate void Deleted();

    private static void Release()
    {
        if (returned is null) return;
        foreach (Tensor tensor in returned) tensor.Dispose();
        returned.Clear();
    }

    /// <summary>What a node of libtorch calls. A node knows nothing but two functions without a context, so each has a pair of its own, which is used
    /// again after it and never freed.</summary>
    private sealed class Slot
    {
        private readonly Arrived _arrive;
        private readonly Deleted _delete;
        private readonly nint* _gradients = (nint*)NativeMemory.AllocZeroed((Most + 1) * (nuint)sizeof(nint));
        private BackwardPass? _pass;
        private int _inputs;

        public Slot()
        {
            (_arrive, _delete) = (Run, Return);
            (Arrive, Delete) = (Marshal.GetFunctionPointerForDelegate(_arrive), Marshal.GetFunctionPointerForDelegate(_delete));
        }

        public nint Arrive { get; }

        public nint Delete { get; }

        public void Take(BackwardPass pass, int inputs) => (_pass, _inputs) = (pass, inputs);

        private TensorArray Run(nint* gradients, int size)
        {
            Release();
            returned ??= [];
            try
            {
                using DisposeScope scope = NewDisposeScope();
                using IDisposable quiet = no_grad();
                Tensor?[] incoming = new Tensor?[size];
                for (int i = 0; i < size; i++) incoming[i] = gradients[i] == 0 ? null : Tensor.UnsafeCreateTensor(gradients[i]);
                if (_pass is not { } pass) throw new InvalidOperationException("A loss has one backward pass.");
                using (pass)
                {
                    _pass = null;
                    Tensor[] made = pass.Run(incoming);
                    for (int i = 0; i < _inputs; i++)
                    {
                        returned.Add(made[i].DetachFromDisposeScope());
                        _gradients[i] = made[i].Handle;
                    }
                }
                return new() { Tensors = _gradients, Size = _inputs };
            }
#pragma warning disable CA1031 // libtorch is between here and whoever called backward, and an exception that meets it ends the process.
            catch (Exception e)
#pragma warning restore CA1031
            {
                // libtorch refuses what has another length than it expects, and whoever called backward gets an exception.
                Console.Error.WriteLine($"The backward pass failed: {e}");
                Release();
                returned.Add(zeros([]).DetachFromDisposeScope());
                for (int i = 0; i <= _inputs; i++) _gradients[i] = returned[0].Handle;
                return new() { Tensors = _gradients, Size = _inputs + 1 };
            }
        }

        private void Return()
        {
            _pass?.Dispose();
            _pass = null;
            Release();
            Free.Add(this);
        }
    }
}
