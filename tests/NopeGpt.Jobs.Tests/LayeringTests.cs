using System.Reflection;
using NopeGpt.Data;
using NopeGpt.Jobs;
using NopeGpt.Model;
using NopeGpt.Model.Native;

namespace NopeGpt.Tests;

public sealed class LayeringTests
{
    [Fact]
    public void Data_and_Model_do_not_know_each_other_and_nothing_below_knows_Web()
    {
        Assert.DoesNotContain(Referenced(typeof(TokenFile)), n => n is "NopeGpt.Model" or "TorchSharp" or "nopegpt" or "NopeGpt.Web");
        Assert.DoesNotContain(Referenced(typeof(ModelConfig)), n => n is "NopeGpt.Data" or "nopegpt" or "NopeGpt.Web");
        Assert.DoesNotContain(Referenced(typeof(RunConfig)), n => n is "NopeGpt.Web");
    }

    [Fact]
    public void Nothing_makes_a_scalar_that_can_be_freed_during_its_call() =>
        Assert.Empty(UnkeptScalars.In(typeof(RunConfig).Assembly, owner: typeof(Scalars)));

    private static IEnumerable<string?> Referenced(Type type) => type.Assembly.GetReferencedAssemblies().Select(n => n.Name);
}
