using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Agreement of adapters with the Python reference, on every case of the shared data that has a lora.json.</summary>
public sealed class LoraParityTests : IDisposable
{
    private const string Infix = ".parametrizations.weight.0";

    private readonly DisposeScope _scope;

    public LoraParityTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Cases
    {
        get
        {
            TheoryData<string> cases = [];
            // A theory without rows would fail where the data is missing; with this one it is skipped.
            if (Needs.DataFolder is null) cases.Add("missing");
            else foreach (string folder in Directory.EnumerateDirectories(Needs.Data("parity")).Where(f => File.Exists(Path.Combine(f, "lora.json"))).Order()) cases.Add(Path.GetFileName(folder));
            return cases;
        }
    }

    public void Dispose() => _scope.Dispose();

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void An_adapter_gives_the_logits_the_loss_and_the_gradients_of_the_reference(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        using Adapter adapter = Adapter.Load(Folder(name), model);
        model.Attach(adapter);
        Dictionary<string, Tensor> expected = Read(name, "lora-expected.safetensors");
        (Tensor tokens_BT, Tensor targets_BT) = Batch(name);
        Assert.InRange(model.Forward(tokens_BT).sub(expected["logits"]).abs().max().item<float>(), 0, 1e-4f);
        Tensor loss = model.Loss(tokens_BT, targets_BT);
        Assert.Equal(expected["loss"].item<float>(), loss.item<float>(), 1e-5);
        loss.backward();

        Dictionary<string, Tensor> gradients = expected.Where(e => e.Key.StartsWith("grad.", StringComparison.Ordinal)).ToDictionary(e => e.Key[5..].Replace(Infix, "", StringComparison.Ordinal), e => e.Value);
        Assert.Equal(gradients.Keys.Order(), model.TrainedParameters().Select(p => p.Name).Order());
        foreach ((string parameter, Tensor value) in model.TrainedParameters())
        {
            double difference = value.grad!.sub(gradients[parameter]).norm().item<float>() / gradients[parameter].norm().item<float>();
            Assert.True(difference <= 1e-4, $"{parameter} differs by {difference:E2}");
        }
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void An_adapter_has_the_settings_and_as_many_parameters_as_the_reference_says(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        using Adapter adapter = Adapter.Load(Path.Combine(Folder(name), "lora.json"), model);
        JsonNode json = JsonNode.Parse(File.ReadAllText(Path.Combine(Folder(name), "lora.json")))!;
        Assert.Equal((int)json["rank"]!, adapter.Config.Rank);
        Assert.Equal((double)json["alpha"]!, adapter.Config.Alpha);
        Assert.Equal((int)json["vocabulary_size"]!, adapter.VocabularySize);
        Assert.Equal((long)json["num_trainable_params"]!, adapter.Parameters().Sum(p => p.Parameter.numel()));
        (long products, long embedding) = adapter.Config.CountTrained(model.Config, adapter.VocabularySize);
        Assert.Equal((long)json["num_trainable_params"]!, products + embedding);
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void Merged_and_saved_and_loaded_again_it_gives_the_logits_of_the_reference(string name)
    {
        using TemporaryFolder folder = new();
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        Dictionary<string, Tensor> expected = Read(name, "lora-expected.safetensors");
        (Tensor tokens_BT, _) = Batch(name);
        using (Adapter adapter = Adapter.Load(Folder(name), model)) adapter.Save(folder["own"]);
        using (Adapter own = Adapter.Load(folder["own"], model))
        {
            model.Attach(own);
            Assert.InRange(model.Forward(tokens_BT).sub(expected["logits"]).abs().max().item<float>(), 0, 1e-4f);
            model.Merge();
        }
        model.Config.Write(folder["config.json"]);
        SafetensorsFile.Save(folder["model.safetensors"], model.Parameters());
        using Decoder merged = Checkpoint.LoadModel(folder.Path);
        Assert.InRange(merged.Forward(tokens_BT).sub(expected["logits"]).abs().max().item<float>(), 0, 1e-4f);
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Cases))]
    public void On_a_base_with_another_weight_it_is_refused_by_the_tensors_name(string name)
    {
        using Decoder model = Checkpoint.LoadModel(Folder(name));
        Tensor weight = model.Parameters().Single(p => p.Name == "decoder.layers.1.stage2.linear1.weight").Parameter;
        using (no_grad()) weight[0, 0].add_(1e-3);
        string message = Assert.Throws<InvalidDataException>(() => Adapter.Load(Folder(name), model)).Message;
        Assert.Contains("lora.safetensors", message);
        Assert.Contains("decoder.layers.1.stage2.linear1.parametrizations.weight.original differs from the base's decoder.layers.1.stage2.linear1.weight", message);
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
}
