using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Agreement with the Python references, on every case of the shared data, read straight from its folder: logits, loss and gradients of
/// all of them, training and generation of NoPE GPT.</summary>
public sealed class ParityTests : IDisposable
{
    private const string Model = "model.safetensors", Expected = "expected.safetensors";

    private readonly DisposeScope _scope;

    public ParityTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> AllCases => Folders("*");

    public static TheoryData<string> Cases => Folders("nope-gpt-*");

    public void Dispose() => _scope.Dispose();

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(AllCases))]
    public void Logits_and_loss_are_those_of_the_reference(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        Dictionary<string, Tensor> expected = Read(name, Expected);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(name);
        Assert.InRange(model.Forward(tokens_BT).sub(expected["logits"]).abs().max().item<float>(), 0, 1e-4f);
        Assert.Equal(expected["loss"].item<float>(), model.Loss(tokens_BT, targets_BT).item<float>(), 1e-5);
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(AllCases))]
    public void Every_gradient_is_that_of_the_reference(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        Dictionary<string, Tensor> expected = Read(name, Expected);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(name);
        model.Loss(tokens_BT, targets_BT).backward();
        Layout layout = Layout.All.Single(l => l.Name == HubLayout.Recognise(Folder(name)).Layout);
        // The references' files have their projections as [out, in].
        Dictionary<string, Tensor> gradients = HubLayout.Tensors(layout, model.Config, [.. model.Parameters().Select(p => (p.Name, p.Parameter.grad!))], transposed: false)
            .ToDictionary(t => "grad." + layout.FullName(t.Name), t => t.Tensor);
        Assert.Equal(expected.Keys.Where(k => k.StartsWith("grad.", StringComparison.Ordinal)).Order(), gradients.Keys.Order());
        foreach ((string gradient, Tensor value) in gradients) AssertClose(gradient, expected[gradient], value, 1e-4);
    }

    // The reference has all its parameters in one group, so its norms decay too.
    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void Five_clipped_steps_of_AdamW_are_those_of_the_reference(string name) => AssertFiveSteps(
        name, "after-5-adamw", 6e-4, new AdamWOptions { Beta1 = 0.9, Beta2 = 0.95, Epsilon = 1e-8, WeightDecay = 0.1, DecayDimensions = 0 });

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void Five_clipped_steps_of_Adafactor_are_those_of_the_reference_in_every_form(string name)
    {
        foreach (AdafactorOptions form in (AdafactorOptions[])[new(), new() { Fused = false }, new() { Fused = false, LowMemory = true }])
        {
            AssertFiveSteps(name, "after-5-adafactor", 1e-2, form);
            AssertFiveSteps(name, "after-5-adafactor_small_lr", 1e-4, form);
        }
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void The_likeliest_kept_tokens_and_their_probabilities_are_those_of_the_reference(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        foreach (JsonNode? text in JsonNode.Parse(File.ReadAllText(Path.Combine(Folder(name), "greedy-of-kept.json")))!.AsArray())
        {
            SamplingOptions options = new()
            {
                Temperature = (double)text!["temperature"]!, TopK = (int)text["top_k"]!, TopP = (double)text["top_p"]!,
                RepeatPenalty = (double)text["repeat_penalty"]!, RepeatWindow = (int)text["repeat_window"]!,
            };
            int[] expected = [.. text["tokens"]!.AsArray().Select(t => (int)t!)];
            using KeyValueCache cache = new(model.Config, 1, (int)text["context_length"]!);
            Tensor logits_BV = model.Forward(tensor(text["prompt"]!.AsArray().Select(t => (long)t!).ToArray()).unsqueeze(0), cache);
            List<int> generated = [];
            for (int i = 0; i < expected.Length; i++)
            {
                SampledToken likeliest = new Sampler(options, 1).Likeliest(logits_BV[0], generated);
                Assert.Equal(expected[i], likeliest.Id);
                // The reference's top-p leaves out the token whose float32 sum exceeds 1 by rounding: the last of the kept ones, sometimes.
                SampledToken rounded = new Sampler(options with { TopK = Math.Max(1, options.TopK - 1) }, 1).Likeliest(logits_BV[0], generated);
                double probability = (double)text["probabilities"]![i]!;
                Assert.InRange(Math.Min(Math.Abs(probability - likeliest.Probability), Math.Abs(probability - rounded.Probability)), 0, 2e-5);
                generated.Add(likeliest.Id);
                logits_BV = model.Forward(tensor(new long[] { likeliest.Id }).unsqueeze(0), cache);
            }
        }
    }

    private static void AssertFiveSteps(string name, string saved, double rate, OptimizerOptions options)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        model.train();
        Dictionary<string, Tensor> expected = Read(name, saved + ".safetensors");
        JsonNode log = JsonNode.Parse(File.ReadAllText(Path.Combine(Folder(name), saved + ".json")))!;
        (Tensor tokens_BT, Tensor targets_BT) = Batch(name);
        IReadOnlyList<(string Name, Tensor Parameter)> parameters = model.Parameters();
        using Optimizer optimizer = options.Create(parameters);
        for (int i = 0; i < 5; i++)
        {
            optimizer.ZeroGrad();
            Tensor loss = model.Loss(tokens_BT, targets_BT);
            loss.backward();
            float norm = GradientNorm.Clip(parameters.Select(p => p.Parameter), (double)log["max_gradient_norm"]!).item<float>();
            optimizer.Step(rate);
            Assert.Equal((double)log["losses"]![i]!, loss.item<float>(), 1e-5 * (double)log["losses"]![i]!);
            Assert.Equal((double)log["gradient_norms"]![i]!, norm, 1e-5 * (double)log["gradient_norms"]![i]!);
        }
        foreach ((string parameter, Tensor value) in parameters)
        {
            AssertClose(parameter, expected[parameter], value, 1e-5);
            Assert.InRange(value.detach().sub(expected[parameter]).abs().max().item<float>(), 0, 1e-5f);
        }
    }

    private static TheoryData<string> Folders(string pattern)
    {
        TheoryData<string> cases = [];
        // A theory without rows would fail where the data is missing; with this one it is skipped.
        if (Needs.DataFolder is null) cases.Add("missing");
        else foreach (string folder in Directory.EnumerateDirectories(Needs.Data("parity"), pattern).Order()) cases.Add(Path.GetFileName(folder));
        return cases;
    }

    private static string Folder(string name) => Needs.Data(Path.Combine("parity", name));

    private static Dictionary<string, Tensor> Read(string name, string file)
    {
        using SafetensorsFile tensors = SafetensorsFile.Open(Path.Combine(Folder(name), file));
        return tensors.Names.ToDictionary(n => n, tensors.Load);
    }

    private static (Tensor Tokens_BT, Tensor Targets_BT) Batch(string name)
    {
        JsonNode batch = JsonNode.Parse(File.ReadAllText(Path.Combine(Folder(name), "batch.json")))!;
        return (Ids("tokens"), Ids("targets"));

        Tensor Ids(string key)
        {
            long[][] rows = [.. batch[key]!.AsArray().Select(row => row!.AsArray().Select(id => (long)id!).ToArray())];
            return tensor([.. rows.SelectMany(row => row)], [rows.Length, rows[0].Length], ScalarType.Int64);
        }
    }

    private static void AssertClose(string name, Tensor expected, Tensor actual, double relative)
    {
        double difference = actual.sub(expected).norm().item<float>() / expected.norm().item<float>();
        Assert.True(difference <= relative, $"{name} differs by {difference:E2}");
    }
}
