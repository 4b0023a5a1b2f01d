using NopeGpt.Jobs.Inference;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Tests.Inference;

public sealed class ModelStoreTests : IDisposable
{
    private readonly TinyStore _tiny = new();
    private readonly List<string> _log = [];

    public void Dispose() => _tiny.Dispose();

    private ModelStore NewStore(int models = 3, long bytes = long.MaxValue) => new(new ModelCatalog(_tiny.Store), InferenceDevice.Cpu, new ModelLimits(models, bytes), _log.Add);

    [Fact]
    public async Task A_run_means_its_newest_checkpoint_and_a_step_is_found_with_and_without_zeros()
    {
        using ModelStore models = NewStore();
        using ModelLease newest = await models.AcquireAsync(TinyStore.Run);
        using ModelLease padded = await models.AcquireAsync($"{TinyStore.Run}/000000001");
        using ModelLease plain = await models.AcquireAsync($"{TinyStore.Run}/1");
        using ModelLease folder = await models.AcquireAsync(_tiny.Folder(TinyStore.Run, 1));
        Assert.Equal(_tiny.Folder(TinyStore.Run, 2), newest.Model.Folder);
        Assert.Equal(_tiny.Folder(TinyStore.Run, 1), padded.Model.Folder);
        Assert.Same(padded.Model, plain.Model);
        Assert.Same(padded.Model, folder.Model);
        Assert.Equal(TinyStore.TrainedContext, newest.Model.TrainedContext);
    }

    [Fact]
    public async Task Requests_that_come_together_share_one_loading()
    {
        using ModelStore models = NewStore();
        ModelLease[] leases = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => models.AcquireAsync(TinyStore.Run)));
        Assert.Single(leases.Select(l => l.Model).Distinct());
        foreach (ModelLease lease in leases) lease.Dispose();
    }

    [Fact]
    public async Task The_longest_unused_model_makes_room_and_one_in_use_never_does()
    {
        _tiny.Add(TinyStore.Run, 3);
        using ModelStore models = NewStore(models: 2);
        using ModelLease used = await models.AcquireAsync($"{TinyStore.Run}/1");
        (await models.AcquireAsync($"{TinyStore.Run}/2")).Dispose();
        using ModelLease third = await models.AcquireAsync($"{TinyStore.Run}/3");
        Assert.Equal([_tiny.Folder(TinyStore.Run, 1), _tiny.Folder(TinyStore.Run, 3)], models.Loaded.Order(StringComparer.Ordinal));
        ModelException full = await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync($"{TinyStore.Run}/2"));
        Assert.Equal(ModelFailure.NoRoom, full.Failure);
    }

    [Fact]
    public async Task A_model_larger_than_the_bound_is_refused_with_the_option_to_change()
    {
        using ModelStore models = NewStore(bytes: 100);
        ModelException e = await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync(TinyStore.Run));
        Assert.Equal(ModelFailure.NoRoom, e.Failure);
        Assert.Contains("--model_memory", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_replaced_checkpoint_is_loaded_again_and_a_deleted_one_is_unknown()
    {
        using ModelStore models = NewStore();
        using ModelLease before = await models.AcquireAsync($"{TinyStore.Run}/1");
        Directory.Delete(_tiny.Folder(TinyStore.Run, 1), recursive: true);
        _tiny.Add(TinyStore.Run, 1, TinyStore.Diverge);
        using ModelLease after = await models.AcquireAsync($"{TinyStore.Run}/1");
        Assert.NotSame(before.Model, after.Model);
        Directory.Delete(_tiny.Folder(TinyStore.Run, 1), recursive: true);
        Assert.Equal(ModelFailure.Unknown, (await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync($"{TinyStore.Run}/1"))).Failure);
    }

    [Fact]
    public async Task A_damaged_newest_checkpoint_is_reported_and_the_one_before_it_is_taken()
    {
        string model = Path.Combine(_tiny.Folder(TinyStore.Run, 2), "model.safetensors");
        byte[] bytes = await File.ReadAllBytesAsync(model);
        bytes[^1] ^= 1;
        await File.WriteAllBytesAsync(model, bytes);
        using ModelStore models = NewStore();
        using ModelLease lease = await models.AcquireAsync(TinyStore.Run);
        Assert.Equal(_tiny.Folder(TinyStore.Run, 1), lease.Model.Folder);
        Assert.Contains(_log, l => l.Contains(model, StringComparison.Ordinal));
        ModelException e = await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync($"{TinyStore.Run}/2"));
        Assert.Equal(ModelFailure.Unusable, e.Failure);
    }

    [Theory]
    [InlineData("20260101-000000-aaab", "did you mean 20260101-000000-aaaa?")]
    [InlineData(TinyStore.Empty, "has no checkpoint yet")]
    [InlineData(TinyStore.Run + "/7", "no checkpoint of step 7")]
    [InlineData("../../etc", "known are 20260101-000000-aaaa")]
    [InlineData("/no/such/folder", "does not exist")]
    public async Task An_unknown_name_says_what_there_is(string name, string says)
    {
        using ModelStore models = NewStore();
        ModelException e = await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync(name));
        Assert.Equal(ModelFailure.Unknown, e.Failure);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
    }
}
