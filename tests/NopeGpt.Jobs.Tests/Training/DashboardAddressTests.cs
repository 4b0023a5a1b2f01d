using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Tests.Training;

/// <summary>Where trainers send their events.</summary>
public sealed class DashboardAddressTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("another machine", false)]
    [InlineData("", true)]
    [InlineData(null, true)]
    public async Task The_key_goes_to_no_program_that_listens_at_the_same_address_of_another_machine(string? machine, bool called)
    {
        Store store = new(_folder.Path);
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        DashboardAddress own = DashboardAddress.Own($"http://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}", "secret");
        File.WriteAllText(store.DashboardPath, JsonSerializer.Serialize(machine is null ? own : own with { Machine = machine }, TrainingEvent.Json));
        Task<TcpClient> call = listener.AcceptTcpClientAsync();
        await using (HubSender sender = new("20260101-000000-0000", store))
        {
            sender.Offer([new ProgressEvent("working", 0.5) { Sequence = 1 }]);
            await Task.WhenAny(call, Task.Delay(called ? 20_000 : 700));
            Assert.Equal(called, call.IsCompletedSuccessfully);
            if (called) (await call).Dispose();
        }
    }
}
