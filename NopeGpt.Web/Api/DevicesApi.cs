using NopeGpt.Web.Live;

namespace NopeGpt.Web.Api;

/// <summary>GET /api/devices: this machine's GPUs and its CPU, and which runs have them.</summary>
internal static class DevicesApi
{
    public static void Map(IEndpointRouteBuilder app) => app.MapGet("/api/devices", async (DeviceBoard board, CancellationToken cancel) =>
        Results.Json(new { devices = await board.ReadAsync(cancel), host = board.Host }, RunView.Json));
}
