using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

// The number of threads is the process's, and tests that compare bits must not meet another one.
[Collection(nameof(Alone))]
public sealed class AdafactorThreadTests
{
    public AdafactorThreadTests() => TorchRuntime.Load();

    [Fact]
    public void The_number_of_threads_does_not_change_the_result()
    {
        using DisposeScope scope = NewDisposeScope();
        int threads = get_num_threads();
        try
        {
            Tensor[] one = After(1), three = After(3);
            foreach ((Tensor a, Tensor b) in one.Zip(three)) Assert.True(a.equal(b).all().item<bool>());
        }
        finally { set_num_threads(threads); }

        static Tensor[] After(int threads)
        {
            set_num_threads(threads);
            (string Name, Tensor Tensor)[] parameters = AdafactorTests.Parameters(31);
            using Adafactor optimizer = new(parameters, new());
            using Generator generator = new(31);
            for (int step = 0; step < 3; step++)
            {
                AdafactorTests.Gradients(parameters, generator);
                optimizer.Step(1e-2);
            }
            return [.. parameters.Select(p => p.Tensor.detach())];
        }
    }
}
