using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class CheckpointTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 31, EmbeddingDimensions = 16, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, Dropout = 0.1 };

    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public CheckpointTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
        File.WriteAllText(_folder["source-tokenizer.json"], """{"version": "1.0"}""");
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void A_saved_checkpoint_goes_on_exactly_as_if_it_had_not_stopped()
    {
        using Decoder model = new(Tiny, 1);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        Train(model, optimizer, 3);
        string path = Save(model, optimizer, 3, new JsonObject { ["step"] = 3, ["dropout"] = Convert.ToBase64String(model.DropoutState) });
        Train(model, optimizer, 4);

        using Decoder resumed = Checkpoint.LoadModel(path);
        using AdamW resumedOptimizer = new(resumed.Parameters(), new AdamWOptions());
        Checkpoint.LoadOptimizer(path, resumedOptimizer);
        JsonObject state = Checkpoint.TrainerState(path)!;
        Assert.Equal(3, (int)state["step"]!);
        resumed.DropoutState = Convert.FromBase64String((string)state["dropout"]!);
        Train(resumed, resumedOptimizer, 4);
        Assert.Equal(model.Config, resumed.Config);
        foreach (((string name, Tensor expected), (_, Tensor actual)) in model.Parameters().Zip(resumed.Parameters()))
            Assert.True(expected.equal(actual).all().item<bool>(), name);
    }

    [Fact]
    public void The_folder_has_every_file_under_its_hash_and_nothing_else()
    {
        string path = SaveNew(100);
        Assert.Equal("step-000000100", Path.GetFileName(path));
        Assert.Equal(
            ["config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json", "trainer.json"],
            Directory.EnumerateFileSystemEntries(path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Equal([path], Directory.EnumerateDirectories(_folder["checkpoints"]));
        Assert.Equal(File.ReadAllText(_folder["source-tokenizer.json"]), File.ReadAllText(Path.Combine(path, "tokenizer.json")));
        Assert.Equal(path, Checkpoint.Open(path).Folder);
        Assert.Equal(1, (int)Checkpoint.TrainerState(path)!["format_version"]!);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_padded_vocabulary_is_not_in_the_file_and_training_goes_on_exactly(bool tied)
    {
        ModelConfig padded = Tiny with { VocabularyMultipleOf = 64, TiedHead = tied };
        using Decoder model = new(padded, 1);
        using Adafactor optimizer = new(model.Parameters(), new AdafactorOptions());
        Train(model, optimizer, 2);
        string path = Save(model, optimizer, 2, new JsonObject { ["dropout"] = Convert.ToBase64String(model.DropoutState) });
        using (SafetensorsFile file = SafetensorsFile.Open(Path.Combine(path, "model.safetensors")))
            Assert.Equal([31, 16], file.Info("token_embeddings.weight").Shape);
        Train(model, optimizer, 3);

        using Decoder resumed = Checkpoint.LoadModel(path);
        using Adafactor resumedOptimizer = new(resumed.Parameters(), new AdafactorOptions());
        Checkpoint.LoadOptimizer(path, resumedOptimizer);
        resumed.DropoutState = Convert.FromBase64String((string)Checkpoint.TrainerState(path)!["dropout"]!);
        Train(resumed, resumedOptimizer, 3);
        foreach (((string name, Tensor one), (_, Tensor other)) in model.Parameters().Zip(resumed.Parameters())) Assert.True(one.equal(other).all().item<bool>(), name);
    }

    [Theory]
    [InlineData("config.json")]
    [InlineData("model.safetensors")]
    [InlineData("tokenizer.json")]
    [InlineData("optimizer.safetensors")]
    public void One_changed_byte_is_found_and_named(string name)
    {
        string path = SaveNew(100), file = Path.Combine(path, name);
        byte[] bytes = File.ReadAllBytes(file);
        bytes[^2] ^= 1;
        File.WriteAllBytes(file, bytes);
        InvalidDataException error = Assert.Throws<InvalidDataException>(() => Checkpoint.Open(path));
        Assert.StartsWith(file + ": its SHA-256", error.Message);
        Assert.EndsWith("use an earlier checkpoint.", error.Message);
        Assert.Equal(path, Checkpoint.Open(path, verify: false).Folder);
        if (name is "config.json" or "model.safetensors") Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(path));
    }

    [Theory]
    [InlineData("\"step\": 200", "\"step\": 201")]
    [InlineData("\"step\"", "\"stet\"")]
    [InlineData("\"trainer.json\"", "\"trainer.jsom\"")]
    [InlineData("SmFuZQ==", "SmFuZR==")]
    [InlineData("\"loss\": 0.1", "\"loss\": 0.3")]
    [InlineData("\"loss\"", "\"step\"")]
    public void A_changed_value_in_the_trainers_state_is_found_and_the_checkpoint_before_is_used(string saved, string damaged)
    {
        string good = SaveNew(100);
        using Decoder model = new(Tiny, 1);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        string bad = Save(model, optimizer, 200, new JsonObject { ["step"] = 200, ["loss"] = 0.1, ["state"] = "SmFuZQ==", ["name"] = "é <+> \u2028", ["small"] = 1e-300 });
        Assert.Equal(bad, Checkpoint.NewestValid(_folder["checkpoints"], Assert.Fail));
        string file = Path.Combine(bad, "trainer.json"), text = File.ReadAllText(file);
        Assert.Contains(saved, text);
        File.WriteAllText(file, text.Replace(saved, damaged));
        Assert.StartsWith(file, Assert.Throws<InvalidDataException>(() => Checkpoint.TrainerState(bad)).Message);
        List<string> warnings = [];
        Assert.Equal(good, Checkpoint.NewestValid(_folder["checkpoints"], warnings.Add));
        Assert.Contains(file, Assert.Single(warnings));
    }

    [Theory]
    [InlineData("config.json", null)]
    [InlineData("model.safetensors", null)]
    [InlineData("tokenizer.json", null)]
    [InlineData("optimizer.safetensors", null)]
    [InlineData("trainer.json", null)]
    [InlineData("trainer.json", "")]
    [InlineData("trainer.json", "[]")]
    [InlineData("trainer.json", "{}")]
    [InlineData("trainer.json", """{"format_version": 1}""")]
    [InlineData("trainer.json", """{"format_version": 2}""")]
    [InlineData("trainer.json", """{"format_version": "x"}""")]
    [InlineData("trainer.json", """{"format_version": 1, "hashes": {"config.json": 5}}""")]
    public void A_missing_or_broken_file_is_reported_and_the_checkpoint_before_is_used(string name, string? text)
    {
        string good = SaveNew(100), bad = SaveNew(200);
        if (text is null) File.Delete(Path.Combine(bad, name));
        else File.WriteAllText(Path.Combine(bad, name), text);
        Assert.Contains(name, Assert.Throws<InvalidDataException>(() => Checkpoint.Open(bad)).Message);
        List<string> warnings = [];
        Assert.Equal(good, Checkpoint.NewestValid(_folder["checkpoints"], warnings.Add));
        Assert.Contains(bad, Assert.Single(warnings));
    }

    [Fact]
    public void Checkpoints_are_listed_newest_first_and_other_folders_are_not()
    {
        string[] saved = [SaveNew(20), SaveNew(3_000_000_000), SaveNew(100)];
        foreach (string other in (string[])["step-", "step-x", "best", "step-1x"]) Directory.CreateDirectory(Path.Combine(_folder["checkpoints"], other));
        Assert.Equal([(saved[1], 3_000_000_000), (saved[2], 100), (saved[0], 20)], Checkpoint.List(_folder["checkpoints"]));
        Assert.Equal(saved[1], Checkpoint.NewestValid(_folder["checkpoints"], Assert.Fail));
        Assert.Empty(Checkpoint.List(_folder["nowhere"]));
        Assert.Null(Checkpoint.NewestValid(_folder["nowhere"], Assert.Fail));
    }

    [Fact]
    public void What_a_crash_has_left_is_no_checkpoint_and_is_cleaned()
    {
        string path = SaveNew(100), left = Path.Combine(_folder["checkpoints"], ".step-000000200.0123.tmp");
        Directory.CreateDirectory(left);
        File.WriteAllText(Path.Combine(left, "config.json"), "half");
        Assert.Equal(path, Assert.Single(Checkpoint.List(_folder["checkpoints"])).Path);
        Checkpoint.CleanTemporary(_folder["checkpoints"]);
        Checkpoint.CleanTemporary(_folder["nowhere"]);
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
    }

    [Fact]
    public void A_deleted_checkpoint_gives_up_its_name_before_its_files()
    {
        string path = SaveNew(100), kept = SaveNew(200);
        using FileSystemWatcher watcher = new(_folder["checkpoints"]) { NotifyFilter = NotifyFilters.DirectoryName };
        using ManualResetEventSlim seen = new();
        string? aside = null;
        watcher.Renamed += (_, e) =>
        {
            if (e.OldFullPath == path) aside = e.FullPath;
            seen.Set();
        };
        watcher.EnableRaisingEvents = true;
        Checkpoint.Delete(path);
        Assert.True(seen.Wait(TimeSpan.FromSeconds(30)), "it was not renamed");
        Assert.Equal([kept], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
        Directory.CreateDirectory(aside!);
        Checkpoint.CleanTemporary(_folder["checkpoints"]);
        Assert.Equal([kept], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
    }

    [Fact]
    public void A_step_that_is_saved_again_replaces_the_damaged_one()
    {
        string path = SaveNew(100);
        File.Delete(Path.Combine(path, "model.safetensors"));
        SaveNew(100);
        Assert.Equal(path, Checkpoint.Open(path).Folder);
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
    }

    [Fact]
    public async Task A_step_that_is_saved_again_is_never_missing()
    {
        string path = SaveNew(100);
        bool done = false;
        using ManualResetEventSlim begun = new();
        Task<long> looking = Task.Factory.StartNew(() =>
        {
            begun.Set();
            long times = 0;
            for (; !Volatile.Read(ref done); times++) Assert.True(File.Exists(Path.Combine(path, "trainer.json")), $"gone at look {times}");
            return times;
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        begun.Wait();
        try
        {
            for (int i = 0; i < 10; i++) SaveNew(100);
        }
        finally
        {
            Volatile.Write(ref done, true);
        }
        Assert.InRange(await looking, 100, long.MaxValue);
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
    }

    /// <param name="killed">After how many of the two renames.</param>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void Where_folders_cannot_change_places_a_kill_between_the_renames_loses_nothing(int killed)
    {
        string path = SaveNew(100), parent = _folder["checkpoints"], aside = Path.Combine(parent, ".step-000000100.0123.tmp");
        string hash = Hash(path);
        Directory.CreateDirectory(aside);
        foreach (string file in Directory.EnumerateFiles(SaveNew(100))) File.Copy(file, Path.Combine(aside, Path.GetFileName(file)));
        File.WriteAllText(Path.Combine(aside, "new"), "");
        if (killed > 0) CheckpointFolder.PutInPlace(aside, path, (_, _) => false);
        // The old one is there still: a kill before the second rename has left the new one aside.
        if (killed == 1) Directory.Move(path, aside);
        Checkpoint.CleanTemporary(parent);
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(parent));
        Assert.Equal(path, Checkpoint.NewestValid(parent, Assert.Fail));
        Assert.Equal(killed == 2, File.Exists(Path.Combine(path, "new")));
        Assert.Equal(hash, Hash(path));

        static string Hash(string folder) => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(Path.Combine(folder, "model.safetensors"))));
    }

    [Fact]
    public void A_second_rename_that_fails_gives_the_old_checkpoint_its_name_back()
    {
        string path = SaveNew(100);
        Assert.ThrowsAny<IOException>(() => CheckpointFolder.PutInPlace(Path.Combine(_folder["checkpoints"], ".step-000000100.gone.tmp"), path, (_, _) => false));
        Assert.Equal(path, Checkpoint.NewestValid(_folder["checkpoints"], Assert.Fail));
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(_folder["checkpoints"]));
    }

    [Fact]
    public void A_save_that_fails_leaves_nothing_behind()
    {
        using Decoder model = new(Tiny, 1);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        Assert.Throws<FileNotFoundException>(() => Checkpoint.Save(_folder["checkpoints/step-000000001"], model, optimizer, _folder["missing.json"], []));
        Assert.Throws<ArgumentException>(() => Save(model, optimizer, 1, new JsonObject { ["hashes"] = 1 }));
        // The optimizer is written after the model; a disposed one makes that fail half-way.
        optimizer.Dispose();
        Assert.ThrowsAny<Exception>(() => Save(model, optimizer, 1, []));
        Assert.Empty(Directory.Exists(_folder["checkpoints"]) ? Directory.EnumerateFileSystemEntries(_folder["checkpoints"]) : []);
    }

    [Fact]
    public void Tensors_that_do_not_fit_are_all_listed()
    {
        using Decoder model = new(Tiny, 1);
        List<(string Name, Tensor Tensor)> tensors = [.. model.Parameters().Where(p => p.Name != "decoder.layers.1.norm1.weight")];
        tensors.Add(("decoder.layers.2.norm1.weight", ones(16)));
        tensors[tensors.FindIndex(t => t.Name == "token_classifier.norm.weight")] = ("token_classifier.norm.weight", ones(17));
        tensors[tensors.FindIndex(t => t.Name == "decoder.layers.0.norm1.weight")] = ("decoder.layers.0.norm1.weight", ones(16, ScalarType.Int64));
        string path = Reference(tensors);
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(path)).Message;
        Assert.Contains("decoder.layers.1.norm1.weight is missing", message);
        Assert.Contains("decoder.layers.2.norm1.weight is unknown", message);
        Assert.Contains("token_classifier.norm.weight has the shape [17] in place of [16]", message);
        Assert.Contains("decoder.layers.0.norm1.weight is I64", message);
    }

    [Fact]
    public void A_folder_of_the_reference_loads_and_a_tied_head_is_accepted_when_equal()
    {
        using Decoder model = new(Tiny, 1);
        Tensor embedding = model.Parameters().Single(p => p.Name == "token_embeddings.weight").Parameter;
        string path = Reference([.. model.Parameters(), ("token_classifier.linear.weight", embedding)]);
        using Decoder loaded = Checkpoint.LoadModel(path);
        foreach (((string name, Tensor expected), (_, Tensor actual)) in model.Parameters().Zip(loaded.Parameters()))
            Assert.True(expected.equal(actual).all().item<bool>(), name);
        Assert.Null(Checkpoint.TrainerState(path));
        Assert.Throws<InvalidDataException>(() => Checkpoint.Open(path));

        Reference([.. model.Parameters(), ("token_classifier.linear.weight", embedding + 1)]);
        Assert.Contains("is tied", Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(path)).Message);
    }

    [Fact]
    public void Half_precision_weights_are_widened()
    {
        using Decoder model = new(Tiny, 1);
        using Decoder loaded = Checkpoint.LoadModel(Reference([.. model.Parameters().Select(p => (p.Name, p.Parameter.to(ScalarType.BFloat16)))]));
        foreach (((string name, Tensor expected), (_, Tensor actual)) in model.Parameters().Zip(loaded.Parameters()))
        {
            Assert.Equal(ScalarType.Float32, actual.dtype);
            Assert.True(expected.allclose(actual, rtol: 0.01), name);
        }
    }

    [Fact]
    public void Missing_folders_and_files_are_named()
    {
        Assert.StartsWith("/nowhere: ", Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel("/nowhere")).Message);
        Assert.StartsWith("/nowhere: ", Assert.Throws<InvalidDataException>(() => Checkpoint.Open("/nowhere")).Message);
        string path = SaveNew(1);
        File.Delete(Path.Combine(path, "optimizer.safetensors"));
        using Decoder model = Checkpoint.LoadModel(path);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        Assert.StartsWith(Path.Combine(path, "optimizer.safetensors"), Assert.Throws<InvalidDataException>(() => Checkpoint.LoadOptimizer(path, optimizer)).Message);
    }

    [Fact]
    public void An_optimizer_of_another_model_is_refused_with_the_file()
    {
        string path = SaveNew(1);
        using Decoder other = new(Tiny with { NumDecoderLayers = 1 }, 1);
        using AdamW optimizer = new(other.Parameters(), new AdamWOptions());
        Assert.StartsWith(Path.Combine(path, "optimizer.safetensors"), Assert.Throws<InvalidDataException>(() => Checkpoint.LoadOptimizer(path, optimizer)).Message);
    }

    private static void Train(Decoder model, Optimizer optimizer, int steps)
    {
        model.train();
        Tensor tokens_BT = arange(0, 20, ScalarType.Int64).view(2, 10), targets_BT = tokens_BT + 1;
        for (int i = 0; i < steps; i++)
        {
            using DisposeScope step = NewDisposeScope();
            optimizer.ZeroGrad();
            model.Loss(tokens_BT, targets_BT).backward();
            optimizer.Step(1e-3);
        }
    }

    private string SaveNew(long step)
    {
        using Decoder model = new(Tiny, 1);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        return Save(model, optimizer, step, new JsonObject { ["step"] = step });
    }

    private string Save(Decoder model, Optimizer optimizer, long step, JsonObject state)
    {
        string path = Path.Combine(_folder["checkpoints"], Checkpoint.FolderName(step));
        Checkpoint.Save(path, model, optimizer, _folder["source-tokenizer.json"], state);
        return path;
    }

    private string Reference(IReadOnlyList<(string Name, Tensor Tensor)> tensors)
    {
        Directory.CreateDirectory(_folder["reference"]);
        Tiny.Write(_folder["reference/config.json"]);
        SafetensorsFile.Save(_folder["reference/model.safetensors"], tensors);
        return _folder["reference"];
    }
}
