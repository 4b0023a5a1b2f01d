using NopeGpt.Model.Native;
using TorchSharp;

namespace NopeGpt.Model.Tests;

public sealed class NativeTests
{
    public NativeTests() => TorchRuntime.Load();

    [Fact]
    public void Libtorch_loads_adds_and_describes_itself()
    {
        using torch.Tensor sum = torch.ones(3).sum();
        Assert.Equal(3f, sum.item<float>());
        Assert.True(TorchRuntime.IsLoaded);
        Assert.Contains("libtorch 2.10.0 from ", TorchRuntime.Describe());
    }
}
