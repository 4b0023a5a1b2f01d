using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using NopeGpt.Model.Native;
using NopeGpt.Tests;
using TorchSharp;

namespace NopeGpt.Model.Tests;

public sealed partial class ModelPresetsTests
{
    private const string Renew = "NOPEGPT_RENEW_APPROVED";

    public static TheoryData<string> Names => [.. ModelPresets.All.Select(p => p.Name)];

    [Theory]
    [InlineData("nope-gpt-400m-chat", 408_450_560)]
    [InlineData("nope-gpt-400m", 408_445_440)]
    [InlineData("nope-gpt", 227_657_728)]
    [InlineData("light-gpt-small", 353_503_232)]
    [InlineData("lil-lm", 39_596_544)]
    [InlineData("gpt2", 124_439_808)]
    [InlineData("gpt2-padded", 124_475_904)]
    [InlineData("gpt2-medium", 354_823_168)]
    [InlineData("gpt2-large", 774_030_080)]
    [InlineData("gpt2-xl", 1_557_611_200)]
    public void Parameter_counts_are_the_published_ones_by_formula_and_by_the_modules_shapes(string name, long published)
    {
        ModelConfig config = ModelPresets.Find(name).Config;
        Assert.Equal(published, config.ParameterCount);
        Assert.Equal(published, Shapes(config).Sum(p => p.Copies * p.Shape.Aggregate(1L, (product, size) => product * size)));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Every_preset_is_valid_is_read_back_and_its_parts_are_those_of_the_modules(string name)
    {
        ModelConfig config = ModelPresets.Find(name).Config;
        Assert.Empty(config.Problems());
        using TemporaryFolder folder = new();
        config.Write(folder["config.json"]);
        Assert.Equal(config, ModelConfig.Read(folder["config.json"]));

        (string Name, long[] Shape, long Copies)[] shapes = [.. Shapes(config)];
        ParameterParts parts = config.Parameters;
        Assert.Equal(
            [parts.Embedding, parts.Positions, parts.Attention, parts.Mlp, parts.Norms, parts.Head],
            new[] { "token_embeddings", "position_embeddings", "stage1", "stage2", "norm", "token_classifier.linear" }
                .Select(part => shapes.Where(p => p.Name.Contains(part, StringComparison.Ordinal)).Sum(p => p.Copies * p.Shape.Aggregate(1L, (product, size) => product * size))));
        Assert.Equal(config.ParameterCount, parts.Total);
    }

    /// <summary>The names and shapes are a contract with every checkpoint ever written. After a change that is wanted, run this test with
    /// NOPEGPT_RENEW_APPROVED=1 and read the difference that git shows.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public void The_names_and_shapes_of_the_parameters_are_the_approved_ones(string name)
    {
        string actual = string.Concat(Shapes(ModelPresets.Find(name).Config).Select(p => $"{p.Name} [{string.Join(", ", p.Shape)}]\n"));
        string path = Path.Combine(SourceFolder(), "Approved", name + ".txt");
        if (Environment.GetEnvironmentVariable(Renew) == "1") File.WriteAllText(path, actual);
        Assert.True(File.Exists(path), $"There is no approved list {path}. Run this test with {Renew}=1 to write it, and read it.");
        string approved = File.ReadAllText(path);
        Assert.True(approved == actual, $"The parameters of {name} are not those of {path}. If that is wanted, run this test with {Renew}=1 and read what git diff shows. They are now:\n{actual}");
    }

    [Fact]
    public void Every_approved_list_belongs_to_a_preset() => Assert.Equal(
        ModelPresets.All.Select(p => p.Name).Order(StringComparer.Ordinal),
        Directory.EnumerateFiles(Path.Combine(SourceFolder(), "Approved")).Select(Path.GetFileNameWithoutExtension).Order(StringComparer.Ordinal));

    [Fact]
    public void An_unknown_preset_is_refused_with_the_nearest()
    {
        Assert.Contains("did you mean gpt2-large?", Assert.Throws<ArgumentException>(() => ModelPresets.Find("gpt2-lagre")).Message);
        Assert.Contains("choose one of nope-gpt, ", Assert.Throws<ArgumentException>(() => ModelPresets.Find("something else")).Message);
        Assert.Equal("gpt2-xl", ModelPresets.Find("GPT2-XL").Name);
    }

    [Fact]
    public void There_is_a_tiny_preset_of_each_architecture_and_it_is_tiny()
    {
        Assert.Equal(["nope-gpt-tiny", "light-gpt-tiny", "lil-lm-tiny", "gpt2-tiny"], ModelPresets.All.Where(p => p.Name.EndsWith("-tiny", StringComparison.Ordinal)).Select(p => p.Name));
        Assert.All(ModelPresets.All.Where(p => p.Name.EndsWith("-tiny", StringComparison.Ordinal)), p => Assert.InRange(p.Config.ParameterCount, 10_000, 500_000));
    }

    // One block stands for all, so that the largest model needs no more memory than its embedding, and that is never written to.
    private static IEnumerable<(string Name, long[] Shape, long Copies)> Shapes(ModelConfig config)
    {
        TorchRuntime.Load();
        using Decoder model = Decoder.Empty(config with { NumDecoderLayers = 1 }, null);
        return [.. model.Parameters().Select(p =>
        {
            string name = Layer().Replace(p.Name, $"layers.{{0..{config.NumDecoderLayers - 1}}}.");
            return (name, p.Parameter.shape, name == p.Name ? 1L : config.NumDecoderLayers);
        }).OrderBy(p => p.name, StringComparer.Ordinal)];
    }

    private static string SourceFolder([CallerFilePath] string path = "") => Path.GetDirectoryName(path)!;

    [GeneratedRegex(@"layers\.0\.")]
    private static partial Regex Layer();
}
